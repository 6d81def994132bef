"""What runs on the writer's thread of a log that several processes share."""

from __future__ import annotations

import abc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from catenary.errors import ConfigError, LogError, LogUnavailable
from catenary.eventlog.committer.group import Batch, Group, Outcome
from catenary.eventlog.committer.log import CommittingLog
from catenary.eventlog.model import Durability, Retention
from catenary.eventlog.shared.appending import SharedAppending
from catenary.eventlog.shared.callers import Callers, S
from catenary.eventlog.shared.durability import InForce
from catenary.eventlog.shared.leases import Lease
from catenary.eventlog.shared.session import L, SharedSession
from catenary.eventlog.stream import Stream

A = TypeVar("A", bound=SharedAppending)
P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("catenary.eventlog")


class SharedWriter(CommittingLog, Generic[S, L, A]):
    """
    The appending side of a shared log.

    A subclass brings the store, of which each thread that asks has its own; the
    streams; and the batches on their way into the store. ``shown`` names the
    servers without their password.
    """

    durability = Durability.MEMORY
    is_shared = True
    _store_name: str
    """What its users call the store."""

    _stream_type: type[L]
    _store: S
    """The writer's."""

    def __init__(
        self,
        *,
        url: str,
        shown: str,
        retention: Retention | None,
        clock: Callable[[], float] | None,
        lease: float,
        **limits: int,
    ) -> None:
        super().__init__(url=url, clock=clock or time.time, **limits)
        self._shown = shown
        self._retention = retention or Retention()
        self._own_clock = clock
        self._callers: Callers[S] | None = None
        self._appendings: dict[int, A] = {}
        """The batches that are under way, by their number."""
        self._lease = Lease(lease)
        self._alive: frozenset[str] = frozenset()
        """The processes that lived when the own lease was renewed."""
        self._in_force: InForce | None = None

    # The store

    @abc.abstractmethod
    def _look_at_store(self) -> None:
        """
        See that the store can be written, and note what is in force in it.

        Raises:
            ConfigError: If it is not set to what was asked for.
            LogUnavailable: If it does not answer.
        """

    @abc.abstractmethod
    def _new_store(self) -> S:
        """Return a store for a thread beside the writer's."""

    @abc.abstractmethod
    def _append_all(self, appendings: Sequence[A]) -> None:
        """Append batches, each as far as the store takes it. Raises ``LogError``."""

    @abc.abstractmethod
    def _new_appending(self, stream: L, batch: Batch) -> A:
        """Return a batch that sets out."""

    @abc.abstractmethod
    def _note_appended(self, appending: A) -> None:
        """Note what upkeep a batch calls for that is in the store."""

    @abc.abstractmethod
    def _session(self, outcome: Outcome) -> SharedSession[S, L]:
        """Return the writer's store for one work."""

    @abc.abstractmethod
    def _keep_logs(self) -> None:
        """Do the upkeep that was noted. Raises ``LogError``."""

    @abc.abstractmethod
    def _who_lives(self, store: S) -> frozenset[str]:
        """Renew this process's lease, and return the processes that live. Raises ``LogError``."""

    @abc.abstractmethod
    def _end_lease(self) -> None:
        """Say that this process holds nothing any more. Raises ``LogError``."""

    @abc.abstractmethod
    def _look_at_held(self) -> None:
        """Learn of cancels and fences that concern the runs held here. Raises ``LogError``."""

    # What is known of it

    def stream(self, log_id: str) -> L:
        """Return the stream of a log."""
        stream = super().stream(log_id)
        assert isinstance(stream, self._stream_type)
        return stream

    def _own(self, stream: Stream) -> L:
        """Return a stream that this log made, as what it is."""
        assert isinstance(stream, self._stream_type)
        return stream

    @property
    def survives(self) -> str:
        """What an acknowledged event survives, as far as it is known."""
        if self._in_force is None:
            return f"what its {self._store_name} is set to: that is logged once it answers"
        return self._in_force.text

    # Opening and closing

    def _open_store(self) -> None:
        self._look_at_store()
        self._renew()
        self._callers = Callers(self._new_store, self._shown)

    def _close_store(self) -> None:
        callers, self._callers = self._callers, None
        if callers is not None:
            callers.close()
            try:
                self._end_lease()
            except LogError as error:
                logger.warning("%s: its lease ends by itself: %s", self._shown, error)
        self._store.close()
        self._lease.interrupted()

    # Asking

    async def _ask(
        self, ask: Callable[Concatenate[S, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Ask the store on another thread. Raises as ``start``, or ``LogUnavailable``."""
        await self._is_open()
        callers = self._callers
        if callers is None:
            raise LogUnavailable(f"{self._shown} was closed meanwhile")
        return await callers.run(ask, *args, **kwargs)

    def _later(self, ask: Callable[[S], None]) -> None:
        """Ask the store on another thread, for nobody; what fails is tried with the next look."""
        callers = self._callers

        def ask_or_say(store: S) -> None:
            try:
                ask(store)
            except LogError as error:
                logger.warning("%s: %s", self._shown, error)

        if callers is not None:
            callers.run_later(ask_or_say)

    # Committing

    def _commit(self, group: Group) -> Outcome:
        with self._waiting_for_settings():
            outcome = Outcome()
            appendings = [self._appending(batch) for batch in group.batches]
            self._append_all(appendings)
            for appending in appendings:
                appending.tell(outcome)
                self._note_appended(appending)
            for work in group.works:
                outcome.results.append((work, work.act(self._session(outcome))))
        for batch in group.batches:
            del self._appendings[batch.number]
        return outcome

    @contextmanager
    def _waiting_for_settings(self) -> Iterator[None]:
        """While it is open, what a server refuses by its configuration waits as an outage does."""
        try:
            yield
        except ConfigError as error:
            self._lease.interrupted()
            raise LogUnavailable(str(error)) from error
        except LogError:
            self._lease.interrupted()
            raise

    def _appending(self, batch: Batch) -> A:
        """Return a batch with what the store has said of it in earlier attempts."""
        found = self._appendings.get(batch.number)
        if found is None:
            found = self._new_appending(self._own(batch.stream), batch)
            self._appendings[batch.number] = found
        return found

    def _probe(self, transaction: Any) -> None:
        self._renew()

    # Upkeep

    def _upkeep(self, *, is_idle: bool) -> float | None:
        with self._waiting_for_settings():
            self._keep_logs()
            if self._lease.is_due(time.monotonic()):
                self._renew()
                self._look_at_held()
        return max(0.01, self._lease.due_in(time.monotonic()))

    def _renew(self) -> None:
        self._alive = self._who_lives(self._store)
        self._lease.renewed(time.monotonic())

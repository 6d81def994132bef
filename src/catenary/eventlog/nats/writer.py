"""What runs on the writer's thread of a NATS log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from catenary.errors import ConfigError, LogError, LogUnavailable
from catenary.eventlog.committer.group import Batch, Group, Outcome
from catenary.eventlog.committer.log import CommittingLog
from catenary.eventlog.model import Durability, Retention
from catenary.eventlog.nats import keeping, leases
from catenary.eventlog.nats.address import Address
from catenary.eventlog.nats.appending import Appending, append_all
from catenary.eventlog.nats.durability import in_force
from catenary.eventlog.nats.names import Names
from catenary.eventlog.nats.session import Session
from catenary.eventlog.nats.store import Servers, Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.shared.callers import Callers
from catenary.eventlog.shared.durability import InForce
from catenary.eventlog.shared.leases import Lease
from catenary.grammar import Step

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("catenary.eventlog")


class NatsWriter(CommittingLog):
    """The appending side of a NATS log."""

    durability = Durability.MEMORY
    is_shared = True

    def __init__(
        self,
        address: Address,
        *,
        url: str,
        retention: Retention | None,
        clock: Callable[[], float] | None,
        lease: float,
        **limits: int,
    ) -> None:
        super().__init__(url=url, clock=clock or time.time, **limits)
        self.address = address
        self.names = Names(address.key_prefix)
        self._retention = retention or Retention()
        self._own_clock = clock
        self._servers = Servers(address)
        self._store = Store(address, self.names, self._servers)
        self._callers: Callers[Store] | None = None
        self._appendings: dict[int, Appending] = {}
        """The batches that are under way, by their number."""
        self._to_trim: set[NatsStream] = set()
        self._to_compact: set[NatsStream] = set()
        self._to_forget: set[NatsStream] = set()
        self._marked: dict[str, NatsStream] = {}
        """The logs that the store is told of, where runs may be open that are held here."""
        self._lease = Lease(lease)
        self._alive: frozenset[str] = frozenset()
        self._ahead_ms = 0
        """How far the store's clock is ahead of this one."""
        self._in_force: InForce | None = None

    def _new_stream(self, log_id: str) -> NatsStream:
        return NatsStream(log_id, self.names.of_log(log_id))

    def stream(self, log_id: str) -> NatsStream:
        """Return the stream of a log."""
        stream = super().stream(log_id)
        assert isinstance(stream, NatsStream)
        return stream

    def _now_ms(self) -> int:
        """Return the time that the store goes by, in ms since 1970."""
        if self._own_clock is not None:
            return int(self._own_clock() * 1000)
        return int(time.time() * 1000) + self._ahead_ms

    @property
    def survives(self) -> str:
        """What an acknowledged event survives, as far as it is known."""
        if self._in_force is None:
            return "what its JetStream is set to: that is logged once it answers"
        return self._in_force.text

    # Opening and closing

    def _open_store(self) -> None:
        found = self._in_force = in_force(self._store, self.address, self.required)
        self.durability = found.durability
        logger.info("%s: an event survives %s", self.address.shown, found.text)
        self._renew()
        self._callers = Callers(
            lambda: Store(self.address, self.names, self._servers), self.address.shown
        )

    def _close_store(self) -> None:
        callers, self._callers = self._callers, None
        if callers is not None:
            callers.close()
            try:
                leases.end(self._store, self.holder)
            except LogError as error:
                logger.warning("%s: its lease ends by itself: %s", self.address.shown, error)
        self._store.close()
        self._marked.clear()
        self._lease.interrupted()

    async def _ask(
        self, ask: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Ask the store on another thread. Raises as ``start``, or ``LogUnavailable``."""
        await self._is_open()
        callers = self._callers
        if callers is None:
            raise LogUnavailable(f"{self.address.shown} was closed meanwhile")
        return await callers.run(ask, *args, **kwargs)

    def _later(self, ask: Callable[[Store], None]) -> None:
        """Ask the store on another thread, for nobody; what fails is tried with the next look."""
        callers = self._callers

        def ask_or_say(store: Store) -> None:
            try:
                ask(store)
            except LogError as error:
                logger.warning("%s: %s", self.address.shown, error)

        if callers is not None:
            callers.run_later(ask_or_say)

    # Committing

    def _commit(self, group: Group) -> Outcome:
        with self._waiting_for_settings():
            outcome = Outcome()
            appendings = [self._appending(batch) for batch in group.batches]
            self._mark(appendings)
            append_all(self._store, appendings, producer=self.holder, at=self._now_ms())
            for appending in appendings:
                self._note_appended(appending, outcome)
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

    def _mark(self, appendings: list[Appending]) -> None:
        """
        Tell the store where runs may be open that are held here, and where leases may end.

        Before the runs begin: a process that dies in between leaves a mark at a log
        without its runs, which harms nobody.
        """
        marked = []
        for appending in appendings:
            starts = [entry for entry in appending.entries if entry.step is Step.START]
            if starts:
                marked.append(appending.stream)
                keeping.expect_leases(self._store, appending.stream, starts, self._now_ms())
        self._mark_all(self._store, marked)

    def _mark_all(self, store: Store, streams: Iterable[NatsStream]) -> None:
        new = [stream for stream in streams if stream.log_id not in self._marked]
        if new:
            store.publish_all([[keeping.mark(self.names, self.holder, one)] for one in new])
        for stream in new:
            self._marked[stream.log_id] = stream

    def _note_appended(self, appending: Appending, outcome: Outcome) -> None:
        appending.tell(outcome)
        stream = appending.stream
        known = stream.known
        if known is None or not appending.appended:
            return
        if any(entry.is_run_end for entries, *_ in appending.appended for entry in entries):
            self._to_compact.add(stream)
        if keeping.is_over(known.state, self._retention):
            self._to_trim.add(stream)
        if keeping.has_much_to_forget(known.state):
            self._to_forget.add(stream)

    def _appending(self, batch: Batch) -> Appending:
        """Return a batch with what the store has said of it in earlier attempts."""
        found = self._appendings.get(batch.number)
        if found is None:
            stream = batch.stream
            assert isinstance(stream, NatsStream)
            found = Appending(stream, batch.entries, batch.number, self.holder)
            self._appendings[batch.number] = found
        return found

    def _session(self, outcome: Outcome) -> Session:
        return Session(self._store, outcome, holder=self.holder, at=self._now_ms())

    def _probe(self, transaction: Session) -> None:
        self._renew()

    # Upkeep

    def _upkeep(self, *, is_idle: bool) -> float | None:
        with self._waiting_for_settings():
            to_trim, self._to_trim = self._to_trim, set()
            for stream in to_trim:
                keeping.trim(self._store, stream, self._retention, self._now_ms())
            to_forget, self._to_forget = self._to_forget, set()
            for stream in to_forget:
                keeping.forget(self._store, stream, self._now_ms())
            if self._lease.is_due(time.monotonic()):
                self._renew()
                self._look_at_held()
        return max(0.01, self._lease.due_in(time.monotonic()))

    def _who_lives(self, store: Store) -> frozenset[str]:
        """Renew this process's lease, and return the processes that live."""
        return leases.renew(store, self.holder, self._lease.seconds).alive

    def _renew(self) -> None:
        found = leases.renew(self._store, self.holder, self._lease.seconds)
        self._alive = found.alive
        self._ahead_ms = found.ahead_ms
        self._lease.renewed(time.monotonic())

    def _look_at_held(self) -> None:
        """Learn of cancels and fences that concern the runs held here."""

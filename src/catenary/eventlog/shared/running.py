"""The runs that a process holds in a log that several share: what is known of them here."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Collection

from catenary.eventlog.entry import Entry
from catenary.eventlog.model import RunInfo
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.shared.callers import S
from catenary.eventlog.shared.hearing import SharedHearing
from catenary.eventlog.shared.live import H
from catenary.eventlog.shared.runs import StoredKey, StoredRun, ending, hold
from catenary.eventlog.shared.session import L, SharedSession
from catenary.eventlog.shared.writer import A
from catenary.eventlog.stream import HeldRun, Stream
from catenary.events import AgentCancelled, AgentError
from catenary.fold import RunState
from catenary.position import Position


class SharedRunning(SharedHearing[S, L, A, H]):
    """Holds runs, brings them up to the store, and ends them whoever holds them."""

    # The store

    @abc.abstractmethod
    def _stored_run(self, store: S, stream: L, run_id: str) -> StoredRun | None:
        """Return a run as it is stored. Raises ``LogError``."""

    @abc.abstractmethod
    def _adopt_any(self, store: S, stream: L, run_id: str) -> StoredRun | None:
        """Let this process hold an open run, whoever does, and return it. Raises ``LogError``."""

    @abc.abstractmethod
    def _adopt_leased(
        self, store: S, stream: L, run_ids: list[str], keys: list[str]
    ) -> tuple[list[StoredRun | None], list[StoredKey | None]]:
        """
        Let this process hold those of the runs that live by their own events.

        Returns the runs and what is stored under idempotency keys. Raises ``LogError``.
        """

    @abc.abstractmethod
    def _runs_of(self, store: S, stream: L) -> list[StoredRun]:
        """Return every run that a log knows, oldest first. Raises ``LogError``."""

    @abc.abstractmethod
    def _has_run(self, store: S, stream: L, run_id: str) -> bool:
        """Return whether a log has, or had, a run. Raises ``LogError``."""

    @abc.abstractmethod
    def _fold(
        self, store: S | None, stream: L, run: HeldRun, head: Position, waiting: list[Entry]
    ) -> RunState:
        """Fold a run through ``head``, then what waits. Without a store all of it waits."""

    # Looking

    async def runs(
        self, log_id: str, *, thread_id: str | None = None, only_open: bool = False
    ) -> list[RunInfo]:
        """Return the runs of a log, oldest first."""
        found = await self._ask(self._runs_of, self.stream(log_id))
        return [
            run.info
            for run in found
            if (thread_id is None or run.info.thread_id == thread_id)
            and (run.info.is_open or not only_open)
        ]

    def folded(self, stream: Stream, run: HeldRun) -> RunState:
        """Return a run folded so far."""
        own = self._own(stream)
        with self._step():
            waiting = [entry for entry in own.uncommitted() if entry.run_id == run.run_id]
            # What was committed here may not be shown yet: others' events come before it.
            head = Position(own.epoch, max(own.head, run.last_seq))
        callers = self._callers
        if callers is None or not run.first_seq:
            return self._fold(None, own, run, head, waiting)
        return callers.run_here(self._fold, own, run, head, waiting)

    def knows_run(self, stream: Stream, run_id: str) -> bool:
        """Return whether a run was ever begun; before the store is open only this process's."""
        callers = self._callers
        if run_id in stream.runs or callers is None:
            return run_id in stream.runs
        return callers.run_here(self._has_run, self._own(stream), run_id)

    # Holding

    def _hold(self, stream: L, stored: StoredRun | None) -> bool:
        """Hold a run here that is this process's in the store; False if it is not."""
        if stored is None or stored.info.holder != self.holder:
            return False
        with self._step():
            hold(stream, stored)
            self._busy[stream.log_id] = stream
        return True

    def _hold_again(self, stream: L, run_id: str, stored: StoredRun | None) -> bool:
        """Bring what is known here of a leased run up to the store; True if it is held here."""
        with self._step():
            run = stream.runs.get(run_id)
            if run is not None and run.is_open:
                seen = stored.info.last_seq if stored is not None else 0
                is_waiting = any(entry.run_id == run_id for entry in stream.uncommitted())
                if is_waiting or run.last_seq > seen:
                    # What is known here is ahead of what the store answered.
                    return True
            if stored is None:
                return run is not None
            if not stored.info.is_open:
                ended = stream.runs.setdefault(run_id, HeldRun(run_id, stored.info.thread_id))
                ended.close("it has ended")
                stream.open_runs.discard(run_id)
                return True
            return self._hold(stream, stored)

    def _is_living(self, store: S, holder: str) -> bool:
        """Whether a process lives, as far as this one can know."""
        if holder in self._alive or not self._lease.may_judge(time.monotonic()):
            return True
        # One that has just come is not in the list of some seconds ago.
        return holder in self._who_lives(store)

    def take_over(self, stream: Stream, run_id: str) -> bool:
        """Hold an open run of another process from now on."""
        own = self._own(stream)
        callers = self._callers
        if callers is None:
            return False
        return self._hold(own, callers.run_here(self._adopt_any, own, run_id))

    async def adopt_runs(
        self, log_id: str, run_ids: Collection[str], keys: Collection[str]
    ) -> frozenset[str]:
        """Know here what other nodes know of leased runs and of idempotency keys."""
        stream = self.stream(log_id)
        wanted, asked = list(run_ids), list(keys)
        if not wanted:
            # What concerns no run the store decides with the append.
            return frozenset()
        found, used = await self._ask(self._adopt_leased, stream, wanted, asked)
        elsewhere = set()
        for run_id, stored in zip(wanted, found, strict=True):
            if self._hold_again(stream, run_id, stored):
                continue
            if stored is not None and stored.info.is_open:
                elsewhere.add(run_id)
        with self._step():
            for key, value in zip(asked, used, strict=True):
                if value is not None and key not in stream.keys:
                    receipt = Receipt()
                    receipt.commit(value.epoch, value.seq)
                    stream.remember_key(key, value.digest, receipt)
        return frozenset(elsewhere)

    def _lose_run(self, stream: L, run: HeldRun) -> None:
        """Somebody else has ended a run that was held here, or holds it now."""
        with self._step():
            # What was committed last may have been its end.
            if run.is_open and run.run_id in stream.open_runs:
                run.close("it was ended elsewhere, or another process holds it")
                stream.open_runs.discard(run.run_id)

    def _is_forgotten(self, stream: L, run_id: str) -> bool:
        """Whether a run that is this process's in the store is nobody's here."""
        with self._step():
            run = stream.runs.get(run_id)
            return (
                run_id not in stream.open_runs
                and (run is None or not run.is_open)
                and all(entry.run_id != run_id for entry in stream.uncommitted())
            )

    # Ending

    async def close_run(
        self, log_id: str, run_id: str, end: AgentError | AgentCancelled, because: str
    ) -> bool:
        """End an open run, whoever holds it, and fence it."""
        stream = self.stream(log_id)
        return await self._do(
            lambda session: self._end_stored(session, stream, run_id, lambda _: end, because),
            stream,
        )

    def _end_stored(
        self,
        session: SharedSession[S, L],
        stream: L,
        run_id: str,
        end_for: Callable[[RunInfo], AgentError | AgentCancelled],
        because: str,
    ) -> bool:
        """End an open run in the store: hold it first, which fences whoever held it."""
        before = self._stored_run(session.store, stream, run_id)
        if before is None or not before.info.is_open:
            return False
        stored = self._adopt_any(session.store, stream, run_id)
        if stored is None or not stored.info.is_open:
            return False
        if not session.append(stream, ending(stored, end_for(before.info), self._clock())):
            return False

        def fence() -> None:
            run = stream.runs.get(run_id)
            if run is not None:
                run.close(because)
                stream.open_runs.discard(run_id)

        session.then(fence)
        return True

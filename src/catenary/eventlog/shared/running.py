"""The runs that a process holds in a log that several share: what is known of them here."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable

from catenary.eventlog.model import RunInfo
from catenary.eventlog.shared.callers import S
from catenary.eventlog.shared.runs import StoredRun, ending, hold
from catenary.eventlog.shared.session import L, SharedSession
from catenary.eventlog.shared.writer import A, SharedWriter
from catenary.eventlog.stream import HeldRun
from catenary.events import AgentCancelled, AgentError


class SharedRunning(SharedWriter[S, L, A]):
    """Holds runs, brings them up to the store, and ends them whoever holds them."""

    # The store

    @abc.abstractmethod
    def _stored_run(self, store: S, stream: L, run_id: str) -> StoredRun | None:
        """Return a run as it is stored. Raises ``LogError``."""

    @abc.abstractmethod
    def _adopt_any(self, store: S, stream: L, run_id: str) -> StoredRun | None:
        """Let this process hold an open run, whoever does, and return it. Raises ``LogError``."""

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

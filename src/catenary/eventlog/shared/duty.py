"""
What is nobody's in particular: lost processes' runs, late cancels, old events.

One process at a time has the duty; each sweep asks for what is due.
"""

from __future__ import annotations

import abc
import logging
import time

from catenary.eventlog.closing import producer_lost
from catenary.eventlog.model import RunInfo
from catenary.eventlog.overdue import close_held_run
from catenary.eventlog.shared.callers import S
from catenary.eventlog.shared.live import H
from catenary.eventlog.shared.running import SharedRunning
from catenary.eventlog.shared.session import L, SharedSession
from catenary.eventlog.shared.writer import A
from catenary.events import AgentCancelled, AgentError

logger = logging.getLogger("catenary.eventlog")

_LOST = "its process was silent for longer than its lease"


class SharedDuty(SharedRunning[S, L, A, H]):
    """The part of a shared log that looks after all of its logs."""

    _lost_looked_at = float("-inf")

    # The store

    @abc.abstractmethod
    def _take_duty(self, store: S) -> bool:
        """Return whether this process has the duty, for a while. Raises ``LogError``."""

    @abc.abstractmethod
    async def _do_what_is_due(self) -> None:
        """Do what the store says is due. Raises ``LogError``."""

    @abc.abstractmethod
    async def _close_lost_runs(self) -> None:
        """End the runs of processes whose lease is over. Raises ``LogError``."""

    async def _do_own(self) -> None:
        """Do what is due of this process's own; here there is nothing. Raises ``LogError``."""

    # Sweeping

    async def sweep(self) -> None:
        """Do what is due, if this process has the duty; and compare heads now and then."""
        await self._is_open()
        self._let_go()
        now = time.monotonic()
        await self._look_at_heads()
        await self._do_own()
        if not await self._ask(self._take_duty):
            return
        await self._do_what_is_due()
        if now - self._lost_looked_at >= self._lease.renew_seconds and self._lease.may_judge(now):
            self._lost_looked_at = now
            await self._close_lost_runs()

    async def _close(
        self, stream: L, run_id: str, end: AgentError | AgentCancelled, because: str
    ) -> None:
        """End a run, held here or elsewhere."""
        run = stream.runs.get(run_id)
        if run is not None and run.is_open and run_id in stream.open_runs:
            close_held_run(self, stream, run, end, int(self._clock() * 1000))
        else:
            await self.close_run(stream.log_id, run_id, end, because)

    async def _close_as_lost(self, stream: L, run_id: str, holder: str) -> None:
        """End a run whose process is lost."""

        def close(session: SharedSession[S, L]) -> bool:
            return self._end_stored(session, stream, run_id, _lost, _LOST)

        if await self._do(close, stream):
            logger.warning(
                "run %s of %s is closed: its process %s is lost", run_id, stream.log_id, holder
            )


def _lost(info: RunInfo) -> AgentError:
    return producer_lost(info.holder, info.last_at)

"""Telling the application how its runs ended, at least once."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable

from catenary.errors import LogError
from catenary.eventlog.base import EventLog
from catenary.eventlog.model import RunInfo
from catenary.fold import RunState
from catenary.history import fold_run
from catenary.observe.counters import Counters

logger = logging.getLogger("catenary.runs")

RunEndHandler = Callable[[RunState], Awaitable[None] | None]

RETRY_SECONDS = 5.0
PAGE = 100


class RunReporter:
    """
    Gives the folded state of every ended run to the application's handlers.

    The log keeps which runs were reported, so a run that ended while no
    process lived is reported by the next one. A handler that raises is tried
    again.
    """

    def __init__(self, log: EventLog, counters: Counters) -> None:
        self._log = log
        self._counters = counters
        self.handlers: list[RunEndHandler] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    def run_ended(self) -> None:
        """A run has ended. Called within the commit, on any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake.set)

    async def work(self) -> None:
        """Report runs as they end, until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._wake.set()
        wait: float | None = None
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            wait = None if await self._report_all() else RETRY_SECONDS

    async def _report_all(self) -> bool:
        """Report what is there; returns whether all of it was taken."""
        try:
            while infos := await self._log.unreported_runs(PAGE):
                for info in infos:
                    if not await self._report(info):
                        return False
        except LogError as error:
            logger.warning("ended runs cannot be read: %s", error)
            return False
        return True

    async def _report(self, info: RunInfo) -> bool:
        self._counters.runs_ended[info.end_type or "unknown"] += 1
        if self.handlers:
            state = await fold_run(self._log, info)
            for handler in self.handlers:
                try:
                    done = handler(state)
                    if inspect.isawaitable(done):
                        await done
                except Exception:
                    logger.exception(
                        "an on_run_end handler failed for run %s of %s; it is called again",
                        info.run_id, info.log_id,
                    )  # fmt: skip
                    return False
        await self._log.mark_reported(info.log_id, info.run_id)
        return True

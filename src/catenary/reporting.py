"""Telling the application how its runs ended, at least once."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections import OrderedDict
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
ORPHANS_SECONDS = 30.0
PAGE = 100
TOLD_REMEMBERED = 10_000


class RunReporter:
    """
    Gives the folded state of every ended run to the application's handlers.

    The log keeps which runs were reported, so a run that ended while no
    process lived is reported by the next one. A handler that raises is tried
    again. Where several bridges of a process share a log, a run counts as
    reported when all of them have dealt with it. Of several nodes one reports
    a run; those without a handler leave it to the others.
    """

    def __init__(self, log: EventLog, counters: Counters) -> None:
        self._log = log
        self._counters = counters
        self.handlers: list[RunEndHandler] = []
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._signal: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def join(self) -> None:
        """Be one of those who are told of this log's ends, until :meth:`leave`."""
        self._log.ends.add(self)

    def leave(self) -> None:
        """Be told no longer; what was not reported here is left to others, or to later."""
        self._signal = None
        self._log.ends.remove(self)

    def run_ended(self) -> None:
        """A run has ended. Called within the commit, on any thread."""
        if self._signal is not None:
            loop, wake = self._signal
            try:
                loop.call_soon_threadsafe(wake.set)
            except RuntimeError:
                # The loop has closed; the next work looks for what ended meanwhile.
                return

    def was_told(self, log_id: str, run_id: str) -> bool:
        """Whether the handlers of this bridge have taken the end of a run."""
        return (log_id, run_id) in self._told

    async def work(self) -> None:
        """Report runs as they end, until cancelled. :meth:`join` first."""
        wake = asyncio.Event()
        self._signal = (asyncio.get_running_loop(), wake)
        while True:
            wait = self._patience if await self._report_all() else RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await wake.wait()
            wake.clear()

    @property
    def _patience(self) -> float | None:
        """After how many seconds to look again for what other nodes have left; None: never."""
        return ORPHANS_SECONDS if self._log.is_shared else None

    async def _report_all(self) -> bool:
        """Report what is there; returns whether all of it was taken."""
        if self._log.is_shared and not self.handlers:
            return True
        is_moving = True
        try:
            while is_moving:
                is_moving = is_marking = False
                for info in await self._log.unreported_runs(PAGE):
                    if not self.was_told(info.log_id, info.run_id):
                        if not await self._report(info):
                            return False
                        self._note_told(info)
                        is_moving = True
                    is_marking |= await self._mark(info)
                is_moving |= is_marking
                if is_marking and len(self._log.ends.listeners) > 1:
                    # The others stopped at a page of what waited for this one.
                    self._log.ends()
        except LogError as error:
            logger.warning("ended runs cannot be read: %s", error)
            return False
        except Exception:
            logger.exception("ended runs cannot be reported; it is tried again")
            return False
        return True

    def _note_told(self, info: RunInfo) -> None:
        self._counters.runs_ended[info.end_type or "unknown"] += 1
        self._told[info.log_id, info.run_id] = None
        if len(self._told) > TOLD_REMEMBERED:
            self._told.popitem(last=False)

    async def _mark(self, info: RunInfo) -> bool:
        """Mark a run as reported if nobody else has to be told; returns whether it is."""
        others = self._log.ends.listeners
        if not all(other.was_told(info.log_id, info.run_id) for other in others):
            return False
        await self._log.mark_reported(info.log_id, info.run_id)
        return True

    async def _report(self, info: RunInfo) -> bool:
        if not self.handlers:
            return True
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
        return True

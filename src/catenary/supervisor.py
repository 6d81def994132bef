"""Supervision of runs that the bridge started: kept alive, drained, cancellable."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

from catenary.errors import LogUnavailable, RunCancelled, UsageError
from catenary.eventlog.receipt import settled
from catenary.interrupt import Cause
from catenary.runs import Run
from catenary.threads import call_in_thread, is_coroutine_function

logger = logging.getLogger("catenary.runs")

THREADS = 64
ENDING_SECONDS = 5.0


class RunHandle:
    """A run that was started: its id, and a way to wait for it or cancel it."""

    def __init__(self, run: Run, task: asyncio.Task[None]) -> None:
        self.run_id = run.run_id
        self._run = run
        self._task = task

    def __repr__(self) -> str:
        return f"<RunHandle {self.run_id} {'done' if self._task.done() else 'running'}>"

    @property
    def is_done(self) -> bool:
        """Whether the run has ended and its end is in the log."""
        return self._task.done()

    async def wait(self) -> None:
        """Wait for the end of the run. What the agent raised was logged and is in its end."""
        await asyncio.wait([self._task])

    async def cancel(self, reason: str | None = None) -> None:
        """Ask for the run to be cancelled; see :meth:`UserWebSocketEmitter.cancel_run`."""
        log = self._run.emitter.log
        await log.request_cancel(self._run.emitter.stream.log_id, self.run_id, reason=reason)


class Supervisor:
    """The runs that were started here, and their threads."""

    def __init__(self, *, threads: int = THREADS) -> None:
        self._tasks: dict[asyncio.Task[None], Run] = {}
        self._noted: weakref.WeakSet[Run] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.threads = threads
        self.ending_seconds = ENDING_SECONDS
        self._slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )
        self.is_draining = False

    @property
    def running(self) -> int:
        """How many started runs have not ended."""
        return len(self._tasks)

    def note(self, run: Run) -> None:
        """Take note of a run that has begun, whoever runs it. Thread-safe."""
        with self._lock:
            self._noted.add(run)

    def _open(self) -> list[Run]:
        with self._lock:
            return [run for run in self._noted if run.is_open]

    def start(self, run: Run, agent: Callable[..., Any], args: tuple[Any, ...]) -> RunHandle:
        """
        Start ``agent(run, *args)``.

        Raises:
            UsageError: Without a running loop, or if ``agent`` cannot be called.
            LogUnavailable: While draining.
            LifecycleError, RunClosed, LogFull: As ``agent_started`` does.
        """
        if not callable(agent):
            raise UsageError(f"start_run() takes a function, not {type(agent).__name__}")
        if self.is_draining:
            raise LogUnavailable("this node is draining; start the run on another")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "start_run() needs a running loop; in a thread use `with emitter.run(…)`"
            ) from None
        is_async = is_coroutine_function(agent)
        run.announce()
        work = self._in_task(run, agent, args) if is_async else self._in_thread(run, agent, args)
        task = loop.create_task(work, name=f"catenary run {run.run_id}")
        self._tasks[task] = run
        task.add_done_callback(self._ended)
        return RunHandle(run, task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._tasks.pop(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, RunCancelled):
            logger.info("%s", error)
        elif error is not None:
            logger.warning("run %s ended with %s", run.run_id, type(error).__name__)

    async def _in_task(self, run: Run, agent: Callable[..., Any], args: tuple[Any, ...]) -> None:
        async with run:
            result = await agent(run, *args)
            if result is not None and not run.has_result:
                run.set_result(result)

    async def _in_thread(self, run: Run, agent: Callable[..., Any], args: tuple[Any, ...]) -> None:
        # The thread outlives a cancelled wait: the run's own interrupt stops it at its next verb.
        loop = asyncio.get_running_loop()
        slots = self._slots.get(loop)
        if slots is None:
            slots = self._slots[loop] = asyncio.Semaphore(self.threads)
        async with slots:
            await call_in_thread(lambda: _run_sync(run, agent, args), name=f"catenary {run.run_id}")

    async def drain(self, timeout: float) -> None:
        """
        Start nothing more; give open runs ``timeout`` seconds; end the rest with ``shutdown``.
        """
        self.is_draining = True
        await _wait_left(self._open(), timeout)
        left = self._open()
        for run in left:
            run.interrupt_with(Cause.SHUTDOWN)
        if left:
            logger.warning("%d runs were ended by the shutdown", len(left))
        # Runs in threads have been ended already, and their threads cannot be waited for.
        await _wait_left([run for run in left if run.is_open], self.ending_seconds)
        for run in left:
            if run.is_open:
                run.end_from_outside(Cause.SHUTDOWN)
        tasks = [task for task, run in self._tasks.items() if run.left.is_settled]
        if tasks:
            await asyncio.wait(tasks, timeout=self.ending_seconds)


async def _wait_left(runs: list[Run], timeout: float) -> None:
    """Wait until the code inside these runs has left, or the time is over."""
    with contextlib.suppress(TimeoutError):
        await settled([run.left for run in runs], timeout)


def _run_sync(run: Run, agent: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with run:
        result = agent(run, *args)
        if result is not None and not run.has_result:
            run.set_result(result)

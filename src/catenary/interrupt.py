"""
Interrupts: how a cancel or a timeout reaches the code inside a run.

In a task the task is cancelled; in a thread the run's next verb raises. The
run then ends with what the interrupt says, whatever the code made of it.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from catenary.errors import CatenaryError, RunCancelled, RunClosed
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.stream import HeldRun
from catenary.verbs import Verbs

logger = logging.getLogger("catenary.runs")

WAITING_SECONDS = 1.0
"""How often the timeouts of a run that waits for its user are looked at again."""

PATIENCE_SECONDS = 10.0
"""How long a task may go on after a timeout cancelled it, until its run is ended from outside."""


class Cause(enum.Enum):
    """Why a run is interrupted."""

    CANCEL = "cancelled"
    TIMEOUT = "timeout"
    IDLE = "idle_timeout"
    SHUTDOWN = "shutdown"


class Interrupt:
    """
    One run's interrupt; the first cause counts.

    It does not hold its run, so that a run whose task was dropped is collected
    and closed.
    """

    def __init__(
        self, verbs: Verbs, held: HeldRun, *, timeout: float | None, idle_timeout: float | None
    ) -> None:
        self._held = held
        self._verbs = verbs
        self._run_id = held.run_id
        self._timeout = timeout
        self._idle_timeout = idle_timeout
        self._began_at = verbs.log.now_ms()
        self._resumed_at = 0
        self._waiting_since = 0
        self._waits = 0
        self._is_stopped = False
        self.cause: Cause | None = None
        self.on_cause: list[Callable[[], None]] = []
        """Called on any thread when the run is interrupted."""

    def cancel(self) -> None:
        """Someone asked for a cancel. Called on any thread."""
        self.raise_cause(Cause.CANCEL)

    def raise_cause(self, cause: Cause) -> None:
        """Interrupt the run, unless it is leaving or interrupted already."""
        if self.cause is None and not self._is_stopped:
            self.cause = cause
            self._deliver()
            for notify in list(self.on_cause):
                notify()

    def _deliver(self) -> None:
        """Interrupt the code at work, where that can be done."""

    def absorb(self) -> bool:
        """Take back what was delivered; returns whether others interrupt the code too."""
        return False

    def stop(self) -> None:
        """The run is leaving: nothing is delivered any more."""
        self._is_stopped = True

    def check(self) -> None:
        """Raise in the code that emits, if the run is interrupted."""
        error = self.error()
        if error is not None:
            raise error

    def error(self) -> BaseException | None:
        """Return what the interrupted code gets to see; None if nothing happened."""
        if self.cause is None:
            return None
        if self.cause is Cause.CANCEL:
            return RunCancelled(self._run_id, self._held.cancel_reason)
        if self.cause is Cause.SHUTDOWN:
            return asyncio.CancelledError("the server shuts down")
        return TimeoutError(f"run {self._run_id!r} was ended: {self._limit()}")

    def _limit(self) -> str:
        if self.cause is Cause.IDLE:
            return f"no event for {self._idle_timeout} s"
        return f"it took longer than {self._timeout} s"

    def end(self) -> Receipt | None:
        """Emit the end that the cause asks for; None if there is no cause."""
        if self.cause is None:
            return None
        if self.cause is Cause.CANCEL:
            return self._verbs.agent_cancelled(
                self._held.cancel_reason, by=self._held.cancel_by, run_id=self._run_id
            )
        message = (
            "the server was stopped" if self.cause is Cause.SHUTDOWN else f"ended: {self._limit()}"
        )
        return self._verbs.agent_error(
            message, code=self.cause.value, retryable=True, run_id=self._run_id
        )

    def end_from_outside(self) -> None:
        """End the run though its code may go on; it may have ended already."""
        try:
            self.end()
        except RunClosed:
            return
        except CatenaryError as problem:
            logger.error("run %s stays open: %s", self._run_id, problem)  # noqa: TRY400

    def due_in(self) -> float | None:
        """Return the seconds until a timeout is due; None without one."""
        now = self._verbs.log.now_ms()
        waits = []
        if self._timeout is not None:
            waits.append(self._timeout - (now - self._began_at) / 1000)
        if self._idle_timeout is not None:
            last = max(self._held.last_at, self._began_at, self._resumed_at)
            waits.append(self._idle_timeout - (now - last) / 1000)
        due = min(waits, default=None)
        # While it waits for its user nothing is due; it is looked at again.
        return max(due, WAITING_SECONDS) if due is not None and self._waits else due

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the time stand still for the timeouts: the run waits for its user."""
        self._waits += 1
        self._waiting_since = self._waiting_since or self._verbs.log.now_ms()
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits:
                self._resumed_at = self._verbs.log.now_ms()
                self._began_at += self._resumed_at - self._waiting_since
                self._waiting_since = 0

    def _late_cause(self) -> Cause:
        spent = self._verbs.log.now_ms() - self._began_at
        is_over = self._timeout is not None and spent >= self._timeout * 1000
        return Cause.TIMEOUT if is_over else Cause.IDLE


class TaskInterrupt(Interrupt):
    """Interrupts a task by cancelling it, as :func:`asyncio.timeout` does."""

    def __init__(
        self, verbs: Verbs, held: HeldRun, *, timeout: float | None, idle_timeout: float | None
    ) -> None:
        super().__init__(verbs, held, timeout=timeout, idle_timeout=idle_timeout)
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task = weakref.ref(task)
        self._cancelling = task.cancelling()
        self._is_delivered = False
        self.patience = PATIENCE_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    def _arm(self) -> None:
        wait = self.due_in()
        if wait is not None:
            self._timer = self._loop.call_later(max(wait, 0), self._timer_fired)

    def _timer_fired(self) -> None:
        wait = self.due_in()
        if wait is not None and wait > 0:
            self._arm()
        else:
            self.raise_cause(self._late_cause())
            # What swallows its cancellation is not waited for.
            self._timer = self._loop.call_later(self.patience, self.end_from_outside)

    def _deliver(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._cancel_task)
        except RuntimeError:
            # The loop has closed, and the task with it; the run is closed when collected.
            return

    def _cancel_task(self) -> None:
        task = self._task()
        if not self._is_stopped and task is not None and not task.done():
            self._is_delivered = True
            task.cancel(str(self.cause))

    def stop(self) -> None:
        """The run is leaving."""
        super().stop()
        if self._timer is not None:
            self._timer.cancel()

    def absorb(self) -> bool:
        """Take back the cancellation, so that code after the run can go on."""
        task = self._task()
        if task is None:
            return False
        if self._is_delivered and self.cause is not Cause.SHUTDOWN:
            self._is_delivered = False
            task.uncancel()
        return task.cancelling() > self._cancelling


class ThreadInterrupt(Interrupt):
    """
    Interrupts a thread at the run's next verb.

    A thread that hangs cannot be stopped: at a timeout its run is ended from
    outside, and what the thread says later is refused.
    """

    def __init__(
        self, verbs: Verbs, held: HeldRun, *, timeout: float | None, idle_timeout: float | None
    ) -> None:
        super().__init__(verbs, held, timeout=timeout, idle_timeout=idle_timeout)
        self._timer: threading.Timer | None = None
        self._arm()

    def _arm(self) -> None:
        wait = self.due_in()
        if wait is not None:
            self._timer = threading.Timer(max(wait, 0), self._timer_fired)
            self._timer.daemon = True
            self._timer.start()

    def _timer_fired(self) -> None:
        wait = self.due_in()
        if wait is not None and wait > 0:
            self._arm()
        elif not self._is_stopped:
            self.raise_cause(self._late_cause())
            self.end_from_outside()

    def stop(self) -> None:
        """The run is leaving."""
        super().stop()
        if self._timer is not None:
            self._timer.cancel()

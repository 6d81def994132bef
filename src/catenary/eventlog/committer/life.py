"""The life of a writer: one thread, from opening the store to closing it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

from catenary.eventlog.machine import Machine


def _future() -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    # Running, so that a caller who gives up waiting cannot cancel it for the others.
    future.set_running_or_notify_cancel()
    return future


class Life:
    """
    One run of a writer's thread. A daemon: it never keeps the process alive.

    ``is_idle`` and ``is_stopping`` are guarded by the log's lock.
    """

    def __init__(self, run: Callable[[Life], None], former: Life | None, machine: Machine) -> None:
        self.is_idle = False
        self.is_open = False
        self.bell = machine.bell()
        self.idle_timeout: float | None = None
        self.opened = _future()
        """The outcome of the attempt to open that is under way."""
        self.closed = _future()
        self._machine = machine
        self._has_closed = machine.bell()
        self._stopping = machine.bell()
        self._deadline = float("inf")
        self._run = run
        self._former = former

    def start(self) -> None:
        """Start the thread."""
        self._machine.start(self._live, name="catenary-writer")

    def _live(self) -> None:
        if self._former is not None:
            self._former._has_closed.wait()
            self._former = None
        self._run(self)

    def note_open(self) -> None:
        """Tell whoever waits that the store is open."""
        self.is_open = True
        self.opened.set_result(None)

    def note_closed(self) -> None:
        """Tell whoever waits that the thread has ended."""
        self._has_closed.set()
        self.closed.set_result(None)

    def note_attempt_failed(self, error: Exception) -> None:
        """Tell whoever waits that this attempt failed; another one may follow."""
        if not self.is_open:
            failed, self.opened = self.opened, _future()
            failed.set_exception(error)

    @property
    def is_stopping(self) -> bool:
        """Whether the thread is to end once nothing waits."""
        return self._stopping.is_set()

    @property
    def is_overdue(self) -> bool:
        """Whether the thread is to end whatever waits."""
        return self._machine.now() >= self._deadline

    def stop(self, timeout: float) -> None:
        """Let the thread end once nothing waits, or after ``timeout`` seconds."""
        self._deadline = self._machine.now() + timeout
        self._stopping.set()
        self.bell.set()

    def wait_before_retry(self, delay: float) -> None:
        """Wait, but not longer once the writer is to end than its deadline allows."""
        if self._stopping.wait(delay) and not self.is_overdue:
            left = self._deadline - self._machine.now()
            self._machine.sleep(min(delay, max(0.0, left)))

    def wait_closed(self, timeout: float) -> bool:
        """Whether the thread ended within ``timeout`` seconds."""
        try:
            self.closed.result(max(0.0, timeout))
        except TimeoutError:
            return False
        return True

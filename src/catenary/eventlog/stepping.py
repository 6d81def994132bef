"""Steps: what one thread does to a log at once, also as finalizers and signal handlers see it."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

StepLock = AbstractContextManager[Any]
"""A ``threading.RLock``, or what stands in front of one."""


class Stepping(abc.ABC):
    """
    State that changes in steps under one lock.

    A finalizer or a signal handler may interrupt a step of its own thread and
    get the lock again. What it brings then comes after the step.
    """

    def __init__(self) -> None:
        self._lock: StepLock = threading.RLock()
        self._is_stepping = False

    def exchange_lock(self, exchange: Callable[[StepLock], StepLock]) -> None:
        """
        Put what ``exchange`` makes of the lock in its place, while everyone else waits.

        For instruments that measure it. Threads that wait at the former one get
        it still, so the new one must exclude them: one that stands in front of
        the former, or the one behind it.
        """
        with self._lock:
            self._lock = exchange(self._lock)

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Change or look at state in one step: what a finalizer brings comes after."""
        with self._lock:
            if self._is_stepping:
                yield
                return
            self._is_stepping = True
            try:
                yield
            finally:
                self._accept_late()
                self._is_stepping = False

    @abc.abstractmethod
    def _accept_late(self) -> None:
        """Take what came during the step, at its end."""

"""What a log with a writer takes from its machine: threads, bells, time and chance."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor

# By its module: the package's own attribute is made too late for a process that is ending.
from concurrent.futures.thread import ThreadPoolExecutor
from random import SystemRandom
from typing import Protocol

_random = SystemRandom()


class Bell(Protocol):
    """What one thread waits for and another rings: a :class:`threading.Event`."""

    def set(self) -> None: ...

    def clear(self) -> None: ...

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it rings, at most ``timeout`` seconds; whether it has rung."""
        ...


class Machine(Protocol):
    """
    Where the threads of a log run. A simulation brings one whose threads take turns.

    ``start`` and ``sleep`` are :mod:`threading`'s and :mod:`time`'s; ``now`` is
    a time in seconds that never goes back.
    """

    def start(self, work: Callable[[], None], *, name: str) -> None:
        """Do some work on a thread of its own, which never keeps the process alive."""
        ...

    def bell(self) -> Bell:
        """Return a bell that has not rung."""
        ...

    def pool(self, threads: int, *, name: str) -> Executor:
        """Return an executor of so many threads."""
        ...

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...

    def uniform(self, least: float, most: float) -> float:
        """Draw a number evenly between two."""
        ...


class RealMachine:
    """The machine that this process runs on."""

    def start(self, work: Callable[[], None], *, name: str) -> None:
        """Start a thread."""
        threading.Thread(target=work, name=name, daemon=True).start()

    def bell(self) -> Bell:
        """Return an event."""
        return threading.Event()

    def pool(self, threads: int, *, name: str) -> Executor:
        """Return a pool of threads."""
        return ThreadPoolExecutor(threads, thread_name_prefix=name)

    def now(self) -> float:
        """Return the monotonic time."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let this thread sleep."""
        time.sleep(seconds)

    def uniform(self, least: float, most: float) -> float:
        """Draw from the system's entropy: forked processes must not retry in step."""
        return _random.uniform(least, most)

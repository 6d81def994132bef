"""A crowd: many threads that do something at once, each with a loop of its own or none."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from catenary.errors import ValidationFailed

Work = Callable[[int], Any]
"""What a member does; it is given its number. A coroutine runs on a loop of its own."""


SWITCH_SECONDS = 1e-6
"""
How long a member may keep the interpreter when others want it.

Python's own 5 ms are long enough for most members to be done with all their
work, so that they would never meet in the middle of anything.
"""

_USUAL_SWITCH_SECONDS = sys.getswitchinterval()


@contextmanager
def switching_often() -> Iterator[None]:
    """Let the threads of this process take turns as often as is useful to find races."""
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_SWITCH_SECONDS)


class Crowd:
    """
    Threads that begin together, at a barrier, and take turns often, so that their work overlaps.

    ``failures`` are what members raised, ``seconds`` how long all took.
    """

    def __init__(self, size: int, work: Work, *, name: str = "crowd") -> None:
        self._barrier = threading.Barrier(size)
        self._work = work
        self._lock = threading.Lock()
        self.failures: list[BaseException] = []
        self.results: dict[int, Any] = {}
        self.seconds = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"{name}-{number}", daemon=True)
            for number in range(size)
        ]

    def _run(self, number: int) -> None:
        try:
            self._barrier.wait(30)
            result = self._work(number)
            if isinstance(result, Coroutine):
                result = asyncio.run(result)
        except BaseException as error:
            with self._lock:
                self.failures.append(error)
        else:
            with self._lock:
                self.results[number] = result

    def run(self, timeout: float = 30.0) -> None:
        """
        Let all work, and wait for them in this thread.

        Raises:
            ValidationFailed: If some have not ended within ``timeout`` seconds:
                the text says where each of them stands; or if some raised.
        """
        began = time.perf_counter()
        deadline = time.monotonic() + timeout
        with switching_often():
            for thread in self._threads:
                thread.start()
            for thread in self._threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        self.seconds = time.perf_counter() - began
        stuck = [thread.name for thread in self._threads if thread.is_alive()]
        if stuck:
            raise ValidationFailed(
                f"{len(stuck)} threads did not end in {timeout:g} s: {stuck[:5]}"
            )
        if self.failures:
            first = self.failures[0]
            raise ValidationFailed(f"{len(self.failures)} threads failed; the first: {first!r}")


async def crowd(size: int, work: Work, *, timeout: float = 30.0, name: str = "crowd") -> Crowd:
    """Let ``size`` threads work at once, without blocking this loop. Raises as :meth:`Crowd.run`."""
    members = Crowd(size, work, name=name)
    await asyncio.to_thread(members.run, timeout)
    return members


async def together(works: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all, and raise the first failure only once every one has ended."""
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results

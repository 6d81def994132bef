"""The course of a simulation: its time, and which callback runs next."""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from catenary.errors import CatenaryError

if TYPE_CHECKING:
    from catenary.validate.simulation.loop import SimulatedLoop

Choose = Callable[[int], int]
"""Given how many callbacks are ready, says which of them runs next; 0 is the oldest."""


def oldest(count: int) -> int:  # noqa: ARG001 - a ``Choose``
    """Run callbacks in the order in which they became ready, as asyncio does."""
    return 0


AT_ONCE_LIMIT = 100_000
"""So many callbacks may run while time stands."""


class Stuck(CatenaryError):
    """A simulation comes no further: nothing is left that could happen, or time stands for ever."""


class Simulation:
    """
    One virtual time for any number of event loops, and the order of their callbacks.

    Nothing waits. While a callback is ready, time stands; when none is, it
    jumps to the next timer, so an hour of heartbeats takes milliseconds. Every
    loop stands for a process: they share the time, and one that is frozen runs
    nothing while the others go on.

    The same ``choose`` gives the same course, as long as what runs here takes
    time and chance from nowhere else. Not thread-safe.

    Attributes:
        now: The time, in seconds; what ``loop.time()`` says on every loop.
        choose: See :data:`Choose`; it may be replaced at any time.
        callback_seconds: How long each callback takes. By default none, so that
            no timer becomes due while others are ready.
        steps: How many callbacks have run.
    """

    def __init__(self, choose: Choose = oldest, *, now: float = 0.0) -> None:
        self.now = now
        self.choose = choose
        self.callback_seconds = 0.0
        self.steps = 0
        self._steps_before = 0
        self._ready: list[tuple[SimulatedLoop, asyncio.Handle]] = []
        self._timers: list[tuple[float, int, SimulatedLoop, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self._is_running = False

    # What the loops bring

    def add(self, loop: SimulatedLoop, handle: asyncio.Handle) -> None:
        """Take a callback that is ready; that of a frozen loop waits for its thaw."""
        (loop.held if loop.is_frozen else self._ready).append((loop, handle))

    def add_timer(self, loop: SimulatedLoop, timer: asyncio.TimerHandle) -> None:
        """Take a callback that is ready at a time."""
        self._timers_set += 1
        heapq.heappush(self._timers, (timer.when(), self._timers_set, loop, timer))

    def freeze(self, loop: SimulatedLoop) -> None:
        """Stop a loop where it stands, as SIGSTOP would stop its process. Idempotent."""
        loop.is_frozen = True
        loop.held += [item for item in self._ready if item[0] is loop]
        self._ready = [item for item in self._ready if item[0] is not loop]

    def thaw(self, loop: SimulatedLoop) -> None:
        """Let a frozen loop go on; what became due meanwhile is ready. Idempotent."""
        loop.is_frozen = False
        held, loop.held = loop.held, []
        self._ready += held

    # Going on

    def step(self) -> bool:
        """
        Run one callback that is ready; False if none is.

        Raises:
            Stuck: If :data:`AT_ONCE_LIMIT` callbacks ran and time did not go on.
        """
        ready = self._ready
        while ready:
            count = len(ready)
            loop, handle = ready.pop(self.choose(count) if count > 1 else 0)
            if not handle.cancelled():
                self._run(loop, handle)
                return True
        return False

    def _run(self, loop: SimulatedLoop, handle: asyncio.Handle) -> None:
        self.steps += 1
        if self.steps > self._steps_before + AT_ONCE_LIMIT:
            raise Stuck(f"time stands at {self.now} and callbacks go on: {handle!r}")
        asyncio._set_running_loop(loop)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)
        if self.callback_seconds:
            self._go_to(self.now + self.callback_seconds)

    def jump(self, limit: float = float("inf")) -> bool:
        """
        Let time go on to the next timer, but not beyond ``limit``.

        False if no timer is due until then; the time is then ``limit``, if
        that is a time.
        """
        timers = self._timers
        while timers and timers[0][3].cancelled():
            heapq.heappop(timers)
        if not timers or timers[0][0] > limit:
            if limit != float("inf"):
                self.now = max(self.now, limit)
            return False
        self._go_to(timers[0][0])
        return True

    def _go_to(self, when: float) -> None:
        """Let time go on; what is due by then is ready."""
        if when > self.now:
            self.now = when
            self._steps_before = self.steps
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            _, _, loop, timer = heapq.heappop(timers)
            self.add(loop, timer)

    def run_for(self, seconds: float) -> None:
        """Run all that is ready or becomes due within so many seconds."""
        end = self.now + seconds
        with self.running():
            while self.step() or self.jump(end):
                pass

    def run_until(self, is_done: Callable[[], bool], *, limit: float = float("inf")) -> bool:
        """
        Run until something holds; False if it does not within ``limit`` seconds.

        Raises:
            Stuck: If it does not hold and nothing will ever happen.
        """
        end = self.now + limit
        with self.running():
            while not is_done():
                if not self.step() and not self.jump(end):
                    if end == float("inf"):
                        raise Stuck("nothing is ready and no timer is set, and nothing else comes")
                    return False
        return True

    @contextmanager
    def running(self) -> Iterator[None]:
        """
        Be the one that runs on this thread, with the hooks that asynchronous generators need.

        Raises:
            RuntimeError: If a loop runs on this thread already.
        """
        if asyncio._get_running_loop() is not None or self._is_running:
            raise RuntimeError("a simulation cannot run within a running event loop")
        self._is_running = True
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=_begun, finalizer=_dropped)
        try:
            yield
        finally:
            self._is_running = False
            sys.set_asyncgen_hooks(*hooks)


def _begun(generator: AsyncGenerator[Any, Any]) -> None:
    loop = asyncio._get_running_loop()
    if loop is not None:
        loop.generators[generator] = None  # type: ignore[attr-defined]


def _dropped(generator: AsyncGenerator[Any, Any]) -> None:
    loop = asyncio._get_running_loop()
    if loop is not None:
        loop.call_soon(loop.create_task, generator.aclose())

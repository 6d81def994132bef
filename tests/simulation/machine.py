"""Threads that take turns with the loops of a simulation, so that a log's writer has its order too."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

from catenary.errors import UsageError
from catenary.validate.simulation.loop import SimulatedLoop

P = ParamSpec("P")
T = TypeVar("T")


class TurnThread:
    """
    What stands for a thread: a greenlet, which runs from one wait to the next.

    It does so within a callback of its loop: nothing else runs meanwhile, and
    what it does has its place in the schedule.
    """

    def __init__(self, machine: SimulatedMachine, work: Callable[[], None]) -> None:
        self._machine = machine
        self._greenlet = greenlet(work)

    def resume(self) -> None:
        """Let it run until it waits or ends; raises what it raises. Called by the loop."""
        machine, loop = self._machine, asyncio._get_running_loop()
        machine.running = self
        self._greenlet.parent = getcurrent()
        # No loop runs on the thread that this stands for.
        asyncio._set_running_loop(None)
        try:
            self._greenlet.switch()
        finally:
            asyncio._set_running_loop(loop)
            machine.running = None

    def wait(self) -> None:
        """Let the simulation go on until :meth:`resume`. Called by what it runs."""
        parent = self._greenlet.parent
        assert parent is not None
        parent.switch()


class TurnBell:
    """A bell that threads which take turns wait for, in virtual time."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._has_rung = False
        self._waiting: deque[Callable[[], None]] = deque()

    def is_set(self) -> bool:
        """Whether it has rung."""
        return self._has_rung

    def set(self) -> None:
        """Ring; whoever waits goes on when the schedule says so."""
        self._has_rung = True
        while self._waiting:
            self._machine.loop.call_soon(self._waiting.popleft())

    def clear(self) -> None:
        """Be as if it had not rung."""
        self._has_rung = False

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until it rings, at most so many virtual seconds; whether it has rung.

        Raises:
            UsageError: On a thread that is not one of the machine's.
        """
        if not self._has_rung:
            self._machine.wait(self._waiting, timeout)
        return self._has_rung


class SimulatedMachine:
    """
    A :class:`catenary.eventlog.machine.Machine` whose threads belong to one loop's process.

    What a pool is given is done on the loop, after half of ``delay`` seconds
    and told after the other half, as a look into a file would take.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        *,
        uniform: Callable[[float, float], float],
        delay: float = 0.0,
    ) -> None:
        self.loop = loop
        self.uniform = uniform
        self.delay = delay
        self.running: TurnThread | None = None

    def start(self, work: Callable[[], None], *, name: str) -> None:
        """Start a thread; its first turn comes when the schedule says so."""
        self.loop.call_soon(TurnThread(self, work).resume)

    def bell(self) -> TurnBell:
        """Return a bell that has not rung."""
        return TurnBell(self)

    def pool(self, threads: int, *, name: str) -> Executor:
        """Return an executor without threads."""
        return _LoopExecutor(self)

    def now(self) -> float:
        """Return the virtual time."""
        return self.loop.time()

    def sleep(self, seconds: float) -> None:
        """Let the simulation go on for so long before this thread does."""
        self.wait(deque(), seconds)

    def wait(self, waiting: deque[Callable[[], None]], timeout: float | None) -> None:
        """Give up the turn until the callback that is put into ``waiting`` is called, or time is up."""
        thread = self.running
        if thread is None:
            raise UsageError("only a thread of the simulated machine can wait here")
        is_over = False

        def go_on() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                thread.resume()

        waiting.append(go_on)
        timer = None if timeout is None else self.loop.call_later(timeout, go_on)
        thread.wait()
        if timer is not None:
            timer.cancel()
        if go_on in waiting:
            waiting.remove(go_on)


class _LoopExecutor(Executor):
    """Does what it is given on the loop of its machine, in time."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine = machine
        self._open: dict[Future[Any], Callable[[], None]] = {}
        self._is_closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do something later."""
        if self._is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()

        def work() -> None:
            del self._open[future]
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                self._later(future.set_exception, error)
            else:
                self._later(future.set_result, result)

        self._open[future] = work
        self._later(lambda: self._open[future]() if future in self._open else None)
        return future

    def _later(self, act: Callable[..., None], *args: Any) -> None:
        self._machine.loop.call_later(self._machine.delay / 2, act, *args)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; what was given is done at once."""
        self._is_closed = True
        for work in list(self._open.values()):
            work()

"""Virtual time goes where the next timer is, and the schedule says what runs."""

from __future__ import annotations

import asyncio
import random

import pytest

from catenary.validate.simulation import SimulatedLoop, Simulation, Stuck
from catenary.validate.simulation.course import AT_ONCE_LIMIT


def test_time_jumps_to_the_next_timer() -> None:
    """An hour passes at once, and each timer sees its own time."""
    simulation = Simulation(now=100.0)
    loop = SimulatedLoop(simulation)
    seen: list[float] = []
    for delay in (3600.0, 0.5, 60.0):
        loop.call_later(delay, lambda: seen.append(loop.time()))
    simulation.run_for(4000.0)
    assert seen == [100.5, 160.0, 3700.0]
    assert simulation.now == 4100.0


def test_time_stands_while_something_is_ready() -> None:
    """Callbacks that follow from each other take no time."""
    simulation = Simulation()
    loop = SimulatedLoop(simulation)
    seen: list[float] = []
    loop.call_later(1.0, seen.append, -1.0)

    def again(count: int) -> None:
        seen.append(loop.time())
        if count:
            loop.call_soon(again, count - 1)

    loop.call_soon(again, 3)
    simulation.run_for(2.0)
    assert seen == [0.0, 0.0, 0.0, 0.0, -1.0]


def test_callbacks_may_take_time() -> None:
    """Then timers become due between them, as on a machine that is busy."""
    simulation = Simulation()
    simulation.callback_seconds = 0.4
    loop = SimulatedLoop(simulation)
    seen: list[tuple[str, float]] = []
    for name in "abcd":
        loop.call_soon(lambda name=name: seen.append((name, round(loop.time(), 1))))  # type: ignore[misc]
    loop.call_later(0.5, lambda: seen.append(("timer", round(loop.time(), 1))))
    simulation.run_for(2.0)
    assert seen == [("a", 0.0), ("b", 0.4), ("c", 0.8), ("d", 1.2), ("timer", 1.6)]


def order_of(simulation: Simulation) -> list[int]:
    """Let ten callbacks run that are ready together; return their order."""
    loop, ran = SimulatedLoop(simulation), list[int]()
    for number in range(10):
        loop.call_soon(ran.append, number)
    simulation.run_for(0.0)
    return ran


def test_callbacks_run_in_their_order_unless_another_is_chosen() -> None:
    """By default as asyncio runs them; else as ``choose`` says, and the same for the same choices."""
    assert order_of(Simulation()) == list(range(10))
    assert order_of(Simulation(lambda count: count - 1)) == list(range(10))[::-1]
    chosen = [order_of(Simulation(random.Random(7).randrange)) for _ in range(2)]
    assert chosen[0] == chosen[1] != list(range(10))


def test_a_choice_is_asked_for_only_where_there_is_one() -> None:
    """It is told how many are ready."""
    counts: list[int] = []

    def choose(count: int) -> int:
        counts.append(count)
        return 0

    order_of(Simulation(choose))
    assert counts == [10, 9, 8, 7, 6, 5, 4, 3, 2]


def test_a_frozen_loop_runs_nothing_until_it_is_thawed() -> None:
    """The others go on; what was ready, or became due, runs afterwards in its order."""
    simulation = Simulation()
    stopped, other = SimulatedLoop(simulation), SimulatedLoop(simulation)
    seen: list[tuple[str, float]] = []
    stopped.call_soon(lambda: seen.append(("was ready", simulation.now)))
    stopped.call_later(1.0, lambda: seen.append(("came due", simulation.now)))
    other.call_later(2.0, lambda: seen.append(("other", simulation.now)))
    simulation.freeze(stopped)
    simulation.run_for(5.0)
    assert seen == [("other", 2.0)]
    simulation.thaw(stopped)
    simulation.run_for(0.0)
    assert seen[1:] == [("was ready", 5.0), ("came due", 5.0)]


def test_a_callback_runs_with_its_own_loop_running() -> None:
    """Loops that share a simulation are not mixed up."""
    simulation = Simulation()
    loops = [SimulatedLoop(simulation) for _ in range(3)]
    running: list[asyncio.AbstractEventLoop] = []
    for loop in loops:
        loop.call_soon(lambda: running.append(asyncio.get_running_loop()))
    simulation.run_for(0.0)
    assert running == loops


def test_waiting_for_what_never_comes_is_told() -> None:
    """Nothing is ready and no timer is set: that is an error, not a wait without end."""
    simulation = Simulation()
    with pytest.raises(Stuck, match="nothing is ready"):
        simulation.run_until(lambda: False)


def test_time_that_stands_for_ever_is_told() -> None:
    """Callbacks that call each other without end are an error, which names one of them."""
    simulation = Simulation()
    loop = SimulatedLoop(simulation)

    def spin() -> None:
        loop.call_soon(spin)

    loop.call_soon(spin)
    with pytest.raises(Stuck, match="spin"):
        simulation.run_for(1.0)
    assert simulation.steps == AT_ONCE_LIMIT + 1


def test_a_wait_may_end_without_what_was_waited_for() -> None:
    """A limit makes it an answer instead of an error; the time is then over."""
    simulation = Simulation()
    loop = SimulatedLoop(simulation)
    loop.call_later(10.0, lambda: None)
    assert not simulation.run_until(lambda: simulation.now > 20, limit=5.0)
    assert simulation.now == 5.0
    assert simulation.run_until(lambda: simulation.now >= 10, limit=60.0)


async def test_a_simulation_does_not_run_within_a_loop() -> None:
    """One loop runs on a thread at a time."""
    with pytest.raises(RuntimeError, match="within a running event loop"):
        Simulation().run_for(1.0)

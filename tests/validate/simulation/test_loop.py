"""A simulated loop runs what asyncio runs, without its waiting."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from catenary import UserWebSocketContext, WebSocketBridgeFactory
from catenary.eventlog.memory import MemoryLog
from catenary.validate.simulation import SimulatedLoop, Stuck


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a simulated loop, as an application would."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)


def test_sleeping_takes_no_time() -> None:
    """A day on the loop's clock, and hardly anything on the wall's."""

    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time() - began

    began = time.monotonic()
    assert run(main()) == 86_400
    assert time.monotonic() - began < 5


def test_timeouts_groups_and_waits_work() -> None:
    """What is built on timers, tasks and futures behaves as ever."""

    async def main() -> list[object]:
        seen: list[object] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        async with asyncio.TaskGroup() as group:
            for delay in (3, 1, 2):
                group.create_task(asyncio.sleep(delay)).add_done_callback(
                    lambda _, delay=delay: seen.append(delay)  # type: ignore[misc]
                )
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(asyncio.sleep(n, n)) for n in (1, 9)], timeout=4
        )
        seen += [task.result() for task in done]
        for task in pending:
            task.cancel()
        seen.append(await asyncio.to_thread(sum, [1, 2, 3]))
        return seen

    assert run(main()) == [1, 2, 3, 1, 6]


def test_a_deadlock_is_an_error() -> None:
    """A future that nobody sets ends the run with a word about it."""
    with pytest.raises(Stuck):
        run(_forever())


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_what_a_callback_raises_is_handled() -> None:
    """By the handler that was set, with its context."""
    loop = SimulatedLoop()
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    loop.call_soon(lambda: 1 / 0)
    loop.simulation.run_for(0.0)
    assert [type(error) for error in told] == [ZeroDivisionError]


def test_what_work_in_an_executor_raises_is_raised() -> None:
    """It is done on the loop, whichever the executor."""

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.get_running_loop().run_in_executor(None, lambda: 1 / 0)

    run(main())


def test_context_variables_stay_with_their_task() -> None:
    """Each task has a copy of the context that it began in."""
    variable = contextvars.ContextVar("variable", default="none")

    async def set_and_get(value: str) -> str:
        variable.set(value)
        await asyncio.sleep(1)
        return variable.get()

    async def main() -> list[str]:
        return [*await asyncio.gather(set_and_get("a"), set_and_get("b")), variable.get()]

    assert run(main()) == ["a", "b", "none"]


def test_generators_that_are_left_are_closed() -> None:
    """At the latest when the loop ends, as on any loop."""
    closed: list[str] = []

    async def numbers(name: str) -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(1)
            closed.append(name)

    async def main() -> None:
        async for _ in numbers("dropped"):
            break
        kept.append(numbers("kept"))
        await anext(kept[0])
        await asyncio.sleep(2)
        assert closed == ["dropped"]

    kept: list[Any] = []
    run(main())
    assert closed == ["dropped", "kept"]


def test_a_closed_loop_takes_nothing() -> None:
    """As asyncio's own."""
    loop = SimulatedLoop()
    loop.close()
    takes: list[Callable[[], object]] = [
        lambda: loop.call_soon(print),
        lambda: loop.call_later(1, print),
        loop.run_forever,
    ]
    for take in takes:
        with pytest.raises(RuntimeError, match="closed"):
            take()


def test_running_until_it_is_stopped() -> None:
    """A callback ends it; what is due later waits for the next run."""
    loop = SimulatedLoop()
    loop.call_later(1, loop.stop)
    loop.call_later(2, print)
    loop.run_forever()
    assert loop.time() == 1
    loop.close()


def test_a_run_that_hangs_is_timed_out_at_once() -> None:
    """A bridge on a simulated loop: ten minutes of an agent that says nothing."""
    loop = SimulatedLoop()
    log = MemoryLog(clock=lambda: 1_800_000_000 + loop.time())

    async def hang(_run: object) -> None:
        await asyncio.sleep(3600)

    async def main() -> list[str]:
        async with WebSocketBridgeFactory(log) as factory:
            emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
            await emitter.start_run(hang, timeout=600).wait()
            return [event.type async for event in factory.events("user_123")]

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(main()) == ["agent_started", "agent_error"]
    assert 600 <= loop.time() < 700

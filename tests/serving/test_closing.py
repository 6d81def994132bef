"""Operators end a run at once."""

from __future__ import annotations

import asyncio

import pytest

from catenary import Run, RunClosed, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.serving.closing import close_run


async def test_a_run_is_closed_with_its_open_tools_and_its_agent_is_fenced(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The end says why; what the agent emits afterwards is refused."""
    with pytest.raises(RunClosed, match="an operator closed it"):
        async with emitter.run(run_id="r1") as run:
            run.emitter.tool_executing("search", {"q": 1}, tool_call_id="c1", run_id="r1")
            assert await close_run(factory.log, "user_123", "r1", "it hangs")
            run.delta("late")
    events = [event async for event in factory.events("user_123")]
    assert [event.type for event in events][-2:] == ["tool_completed", "agent_error"]
    assert events[-1].data["code"] == "closed"
    assert events[-1].data["message"] == "it hangs"


async def test_a_supervised_run_is_closed_though_its_agent_waits(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """It is out of the users' sight at once; the task ends when it speaks again."""
    goes_on = asyncio.Event()

    async def agent(run: Run) -> None:
        await goes_on.wait()
        run.delta("late")

    handle = emitter.start_run(agent)
    await asyncio.sleep(0)
    assert await close_run(factory.log, "user_123", handle.run_id, None)
    goes_on.set()
    await handle.wait()
    ends = [event.data.get("code") async for event in factory.events("user_123")]
    assert ends == [None, "closed"]


async def test_a_run_that_ended_or_never_was_is_not_closed(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """There is nothing to wait for, and nothing is emitted."""
    async with emitter.run(run_id="r1"):
        pass
    head = await factory.log.head("user_123")
    assert not await close_run(factory.log, "user_123", "r1", None)
    assert not await close_run(factory.log, "user_123", "r2", None)
    assert await factory.log.head("user_123") == head

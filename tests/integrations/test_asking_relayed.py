"""What holds for every framework whose agents ask their user."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from catenary import UserWebSocketEmitter, WebSocketBridgeFactory, WebSocketEvent
from catenary.answering import Answer, Answering
from catenary.auth import Identity
from catenary.fold import RunState, RunStatus
from catenary.inbound import Source
from tests.integrations.frameworks.cautious import CAUTIOUS, Cautious

ME = Source(identity=Identity(user_id="user_123"), log_id="user_123")
NO = {"approved": False, "reason": "I need it"}


@pytest.fixture(params=CAUTIOUS)
def agent(request: pytest.FixtureRequest) -> Cautious:
    """An agent that asks before each of two deletions."""
    return CAUTIOUS[request.param].make()


async def questions(factory: WebSocketBridgeFactory) -> list[WebSocketEvent]:
    """Wait for both questions."""
    async with asyncio.timeout(10):
        while True:
            found = [
                event
                async for event in factory.events("user_123")
                if event.type == "input_requested"
            ]
            if len(found) == 2:
                return found
            await asyncio.sleep(0.01)


async def answer_both(factory: WebSocketBridgeFactory) -> None:
    """Yes to the first file, no to the second."""
    for event in await questions(factory):
        assert event.data["kind"] == "approval"
        assert event.data["tool_name"] == "delete"
        given: Any = True if event.data["tool_input"] == {"path": "1"} else NO
        request_id = event.data["request_id"]
        await Answering(factory.service).take(ME, request_id, given, f"answer to {request_id}")


def assert_answered(state: RunState) -> None:
    """The first is deleted, the second not, and the agent has gone on."""
    assert (state.status, state.text) == (RunStatus.COMPLETED, "Done.")
    last = {tool.tool_call_id: tool for tool in state.tools}
    assert last["call_1"].tool_output == "deleted 1"
    assert all(tool.tool_output is None for tool in state.tools if tool.tool_call_id == "call_2")


async def test_an_agent_asks_within_its_run(
    agent: Cautious, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """All events are of the one run, with the answers among them."""
    handle = emitter.start_run(agent.ask)
    await answer_both(factory)
    async with asyncio.timeout(10):
        await handle.wait()
    (state,) = await factory.runs("user_123")
    assert_answered(state)
    assert [asked.by for asked in state.questions] == ["user_123"] * 2


async def test_an_agent_ends_with_its_questions_and_goes_on_with_the_answers(
    agent: Cautious, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The second run names the first, begins when both are answered, and asks nothing more."""
    again = []

    @factory.on_answer
    async def go_on(answer: Answer, emitter: UserWebSocketEmitter) -> None:
        again.append(emitter.start_run(agent.resume, answer))

    handle = emitter.start_run(agent.suspend)
    async with asyncio.timeout(10):
        await handle.wait()
        await answer_both(factory)
        await again[0].wait()
    first, second = await factory.runs("user_123")
    assert first.status is RunStatus.SUSPENDED
    assert not any(tool.tool_output for tool in first.tools)
    assert second.continues_run_id == first.run_id
    assert_answered(second)


async def test_a_cancel_ends_an_agent_that_waits(
    agent: Cautious, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    handle = emitter.start_run(agent.ask)
    await questions(factory)
    await emitter.cancel_run(handle.run_id)
    async with asyncio.timeout(10):
        await handle.wait()
    (state,) = await factory.runs("user_123")
    assert state.status is RunStatus.CANCELLED

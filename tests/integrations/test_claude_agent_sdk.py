"""What is particular to the Claude Agent SDK: messages that come whole, sub-agents, permissions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("claude_agent_sdk", reason="claude-agent-sdk is not installed")

from claude_agent_sdk import ClaudeAgentOptions, CLINotFoundError, create_sdk_mcp_server, query

from catenary import Run, UsageError, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.answering import Answering
from catenary.auth import Identity
from catenary.fold import RunState, RunStatus
from catenary.inbound import Source
from catenary.integrations.claude_agent_sdk import asking, relay
from tests.integrations.frameworks.cautious import SCRIPT, delete
from tests.integrations.frameworks.claude_agents import (
    SERVER,
    CautiousProgram,
    Json,
    ToldProgram,
    answered,
    as_tool,
    said_whole,
)

ME = Source(identity=Identity(user_id="user_123"), log_id="user_123")


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def thought(said: str) -> Json:
    return {"type": "thinking", "thinking": said, "signature": ""}


def call(id: str, name: str, **given: Any) -> Json:
    return {"type": "tool_use", "id": id, "name": name, "input": given}


async def tell(run: Run, *messages: Json) -> None:
    result = await relay(query(prompt="Which?", transport=ToldProgram(messages)), run)
    assert result.result == "done"


async def children(factory: WebSocketBridgeFactory, run: Run) -> list[RunState]:
    return [state for state in await factory.runs("user_123") if state.run_id != run.run_id]


async def test_messages_that_come_whole_are_said(emitter: UserWebSocketEmitter) -> None:
    """Without partial messages; the parts of one message, which come one by one, have one id."""
    async with emitter.run() as run:
        await tell(
            run,
            said_whole("msg_1", thought("Hm.")),
            said_whole("msg_1", text("I read."), call("call_1", "Read", path="a")),
            answered("call_1", "found"),
            said_whole("msg_2", text("Two.")),
        )
    assert run.state.reasoning == "Hm."
    assert [message.text for message in run.state.messages] == ["Hm.", "I read.", "Two."]
    assert len({message.message_id for message in run.state.messages}) == 2
    (tool,) = run.state.tools
    assert (tool.tool_name, tool.tool_input) == ("Read", {"path": "a"})
    assert tool.tool_output == "found"


async def test_a_sub_agent_has_a_run_of_its_own(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """While the call that asked it is open; also one that another sub-agent asked."""
    async with emitter.run(agent_name="boss") as run:
        await tell(
            run,
            said_whole("msg_1", call("call_1", "Agent", subagent_type="expert")),
            said_whole("msg_2", text("I ask."), call("call_2", "Agent"), parent="call_1"),
            said_whole("msg_3", call("call_3", "Read", path="a"), parent="call_2"),
            answered("call_3", "found", parent="call_2"),
            answered("call_2", "known", parent="call_1"),
            answered("call_1", "I know."),
            said_whole("msg_4", text("Two.")),
        )
    expert, other = await children(factory, run)
    assert (expert.agent_name, expert.parent_run_id, expert.text) == (
        "expert", run.run_id, "I ask.",
    )  # fmt: skip
    assert (other.agent_name, other.parent_run_id) == ("Agent", expert.run_id)
    assert [tool.tool_output for tool in other.tools] == ["found"]
    assert [tool.tool_output for tool in expert.tools] == ["known"]
    assert [tool.tool_output for tool in run.state.tools] == ["I know."]
    assert {state.status for state in (expert, other)} == {RunStatus.COMPLETED}


async def test_a_query_without_a_result_is_refused(emitter: UserWebSocketEmitter) -> None:
    """Whoever leaves the messages early would else lose the end."""

    async def nothing() -> Any:
        return
        yield

    async with emitter.run() as run:
        with pytest.raises(UsageError, match="without a result"):
            await relay(nothing(), run)


async def test_a_program_that_is_not_there_fails_the_run(
    emitter: UserWebSocketEmitter, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the SDK starts a program as ever; what it raises comes through."""
    runs: list[Run] = []
    options = ClaudeAgentOptions(cli_path="/nowhere/claude")

    async def run_it() -> None:
        async with emitter.run() as run:
            runs.append(run)
            await relay(query(prompt="Which?", options=options), run)

    with pytest.raises(CLINotFoundError):
        await run_it()
    assert runs[0].state.status is RunStatus.FAILED


async def test_the_user_is_asked_for_what_the_rules_leave_open(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """Yes to the first call, no to the second; the reason reaches the model alone."""
    server = create_sdk_mcp_server(SERVER, tools=[as_tool(delete)])

    async def cautious(run: Run) -> None:
        options = ClaudeAgentOptions(mcp_servers={SERVER: server}, can_use_tool=asking(run))
        await relay(query(prompt="Which?", options=options, transport=CautiousProgram(SCRIPT)), run)

    handle = emitter.start_run(cautious)
    async with asyncio.timeout(10):
        while len(found := await factory.questions("user_123")) < 2:
            await asyncio.sleep(0.01)
        for question in found:
            is_first = question.tool_call_id == "call_1"
            given = True if is_first else {"approved": False, "reason": "private"}
            request_id = question.request_id
            await Answering(factory.service).take(ME, request_id, given, f"to {request_id}")
        await handle.wait()
    (state,) = await factory.runs("user_123")
    outputs = {tool.tool_call_id: (tool.tool_output, tool.error) for tool in state.tools}
    assert outputs["call_1"] == ("deleted 1", None)
    assert outputs["call_2"] == (None, "the tool failed")
    assert "private" not in str(outputs)
    assert state.text == "Done."

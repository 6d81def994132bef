"""What is particular to the OpenAI Agents SDK: handoffs, hooks, approvals, hosted tools."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("agents", reason="openai-agents is not installed")

from agents import Agent, Runner, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message
from openai.types.responses import ResponseFunctionWebSearch
from openai.types.responses.response_function_web_search import ActionSearch

from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.fold import RunState, RunStatus
from catenary.integrations.openai_agents import RelayHooks, relay
from tests.integrations.frameworks.openai_agents import agent, as_tool, hosted, model
from tests.integrations.frameworks.script import Call, Say, Script


async def search(q: str) -> str:
    """Search."""
    return f"found {q}"


async def children(factory: WebSocketBridgeFactory, run: Run) -> list[RunState]:
    states = await factory.runs("user_123")
    return [state for state in states if state.parent_run_id == run.run_id]


async def test_the_result_is_returned_when_it_is_complete(emitter: UserWebSocketEmitter) -> None:
    async with emitter.run() as run:
        streamed = Runner.run_streamed(agent([[Say("Two.")]]), "Which?")
        assert await relay(streamed, run) is streamed
    assert (streamed.is_complete, streamed.final_output) == (True, "Two.")


@pytest.mark.parametrize("hooks", [None, RelayHooks()])
async def test_a_handoff_is_a_run_of_its_own(
    hooks: RelayHooks | None, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """From one to the next, each ends when it hands on; the first goes on in its own run."""
    boss = agent(
        [[Say("Over. "), Call("call_1", "transfer_to_writer", ("{}",))], [Say("Thanks.")]],
        name="boss",
    )
    critic = agent([[Say("Good. "), Call("call_3", "transfer_to_boss", ("{}",))]], name="critic")
    writer = agent(
        [
            [Say("I write. "), Call("call_2", "search", ('{"q": "x"}',))],
            [Call("call_4", "transfer_to_critic", ("{}",))],
        ],
        [search],
        name="writer",
    )
    boss.handoffs, writer.handoffs, critic.handoffs = [writer], [critic], [boss]
    async with emitter.run(agent_name="boss") as run:
        await relay(Runner.run_streamed(boss, "Write", hooks=hooks), run, hooks=hooks)
    assert run.state.text == "Over. Thanks."
    (tool,) = run.state.tools
    assert (tool.tool_name, tool.tool_output) == ("transfer_to_writer", {"agent": "writer"})
    first, second = await children(factory, run)
    assert (first.agent_name, first.text, first.status) == (
        "writer", "I write. ", RunStatus.COMPLETED,
    )  # fmt: skip
    assert [tool.tool_output for tool in first.tools] == ["found x", {"agent": "critic"}]
    assert (second.agent_name, second.text) == ("critic", "Good. ")
    assert (first.ended_at or 0) <= (second.started_at or 0)
    assert second.last_seq < run.state.last_seq


async def test_with_hooks_each_tool_ends_when_it_does(emitter: UserWebSocketEmitter) -> None:
    """The SDK's stream alone tells the ends of parallel tools when all have ended."""
    runs: list[Run] = []
    ended: list[int] = []

    async def quick(q: str) -> str:
        """Quick."""
        return q

    async def slow(q: str) -> str:
        """Slow."""
        async with asyncio.timeout(5):
            while not any(tool.tool_output for tool in runs[0].state.tools):
                await asyncio.sleep(0.005)
        ended.append(1)
        return q

    calls = [Call(f"call_{name}", name, ('{"q": "x"}',)) for name in ("slow", "quick")]
    hooks = RelayHooks()
    async with emitter.run() as run:
        runs.append(run)
        streamed = Runner.run_streamed(
            agent([calls, [Say("Two.")]], [quick, slow]), "Which?", hooks=hooks
        )
        await relay(streamed, run, hooks=hooks)
    assert ended == [1]
    assert [tool.tool_output for tool in run.state.tools] == ["x", "x"]


CALLS: Script = [
    [Call("call_1", "delete", ('{"q": "a"}',)), Call("call_2", "search", ('{"q": "b"}',))],
    [Say("Done.")],
]


@pytest.mark.parametrize("hooks", [None, RelayHooks()])
async def test_a_call_that_needs_an_approval_begins_when_it_is_approved(
    hooks: RelayHooks | None, emitter: UserWebSocketEmitter
) -> None:
    """In the run that goes on, under its own name, with what that took alone."""

    async def delete(q: str) -> str:
        """Delete."""
        return f"deleted {q}"

    cautious = Agent(
        name="cleaner",
        model=model(CALLS),
        tools=[as_tool(delete, needs_approval=True), as_tool(search)],
    )
    async with emitter.run() as run:
        asked = await relay(Runner.run_streamed(cautious, "x", hooks=hooks), run, hooks=hooks)
    assert [item.tool_name for item in asked.interruptions] == ["delete"]
    assert [tool.tool_call_id for tool in run.state.tools] == ["call_2"]
    state = asked.to_state()
    state.approve(asked.interruptions[0])
    async with emitter.run() as again:
        await relay(Runner.run_streamed(cautious, state, hooks=hooks), again, hooks=hooks)
    (tool,) = again.state.tools
    assert (tool.tool_call_id, tool.tool_name, tool.tool_input, tool.tool_output) == (
        "call_1", "delete", {"q": "a"}, "deleted a",
    )  # fmt: skip
    assert (again.state.text, again.state.usage["requests"]) == ("Done.", 1)


async def test_a_tool_of_the_provider_is_a_tool(emitter: UserWebSocketEmitter) -> None:
    """The SDK tells of it when it has ended."""
    searched = ResponseFunctionWebSearch(
        id="ws_1",
        action=ActionSearch(type="search", query="bridges"),
        status="completed",
        type="web_search_call",
    )
    asked = ScriptedModel(
        [ModelStep.stream(lambda call: hosted(searched)), [assistant_message("Two.")]]
    )
    async with emitter.run() as run:
        await relay(Runner.run_streamed(Agent(name="a", model=asked), "Which?"), run)
    (tool,) = run.state.tools
    assert (tool.tool_call_id, tool.tool_name) == ("ws_1", "web_search")
    assert tool.tool_input["query"] == "bridges"
    assert run.state.text == "Two."


async def test_a_tool_whose_error_the_sdk_handles_failed(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The SDK's own words to the model say so."""

    @function_tool
    async def break_down(q: str) -> str:
        raise KeyError("private")

    asking: Script = [[Call("call_1", "break_down", ('{"q": "x"}',))], [Say("None.")]]
    async with emitter.run() as run:
        made = Agent(name="a", model=model(asking), tools=[break_down])
        await relay(Runner.run_streamed(made, "Which?"), run)
    assert run.state.tools[0].error == "the tool failed"
    assert "private" not in str([event.data async for event in factory.events("user_123")])

"""What is particular to Google ADK: messages that come whole, agents that hand over or work in parallel."""

from __future__ import annotations

import pytest

pytest.importorskip("google.adk", reason="google-adk is not installed")

from google.adk.agents import BaseAgent, ParallelAgent

from catenary import Run, UsageError, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.fold import RunState, RunStatus
from catenary.integrations.google_adk import STREAMED, relay, text_of
from tests.integrations.frameworks.google_agents import agent, events
from tests.integrations.frameworks.script import Call, Say, Think


async def children(factory: WebSocketBridgeFactory, run: Run) -> list[RunState]:
    return [state for state in await factory.runs("user_123") if state.run_id != run.run_id]


async def test_messages_that_come_whole_are_said(emitter: UserWebSocketEmitter) -> None:
    """Without a ``run_config``; the answer's text has no thought in it."""
    async with emitter.run() as run:
        asked = agent([[Think("Hm. "), Say("Two "), Say("bridges.")]])
        answer = await relay(await events(asked), run)
    assert text_of(answer) == run.state.text == "Two bridges."
    assert run.state.reasoning == "Hm. "


async def test_an_agent_that_is_handed_the_conversation_has_a_run_of_its_own(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """The transfer is a tool call of the one that hands it over."""
    expert = agent([[Say("I know.")]], name="expert", description="Knows.")
    transfer = Call("call_1", "transfer_to_agent", ('{"agent_name": "expert"}',))
    boss = agent([[transfer]], name="boss", sub_agents=[expert])
    async with emitter.run(agent_name="boss") as run:
        answer = await relay(await events(boss, run_config=STREAMED), run)
    (state,) = await children(factory, run)
    assert (state.agent_name, state.parent_run_id) == ("expert", run.run_id)
    assert (state.text, state.status) == ("I know.", RunStatus.COMPLETED)
    assert text_of(answer) == "I know."
    assert [tool.tool_name for tool in run.state.tools] == ["transfer_to_agent"]
    assert run.state.usage["requests"] == 2


@pytest.mark.filterwarnings("ignore:ParallelAgent is deprecated:DeprecationWarning")
async def test_agents_that_work_in_parallel_have_runs_of_their_own(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """Their words are not mixed."""
    both: list[BaseAgent] = [
        agent([[Say("I am "), Say(f"{name}.")]], name=name) for name in ("a", "b")
    ]
    async with emitter.run() as run:
        asked = ParallelAgent(name="both", sub_agents=both)
        await relay(await events(asked, run_config=STREAMED), run)
    texts = {state.agent_name: state.text for state in await children(factory, run)}
    assert texts == {"a": "I am a.", "b": "I am b."}
    assert run.state.text == ""


async def test_what_a_tool_returns_is_told_as_it_is(emitter: UserWebSocketEmitter) -> None:
    """ADK wraps what is no dict; that does not show."""

    async def look(q: str) -> dict[str, str]:
        """Look."""
        return {"found": q}

    async def search(q: str) -> str:
        """Search."""
        return q

    calls = [Call("call_1", "look", ('{"q": "a"}',)), Call("call_2", "search", ('{"q": "a"}',))]
    async with emitter.run() as run:
        await relay(await events(agent([calls, [Say("Two.")]], [look, search])), run)
    assert [tool.tool_output for tool in run.state.tools] == [{"found": "a"}, "a"]


async def test_events_without_an_answer_are_refused(emitter: UserWebSocketEmitter) -> None:
    async with emitter.run() as run:
        events_left = await events(agent([[Say("Two.")]]))
        await events_left.aclose()
        with pytest.raises(UsageError, match="without an answer"):
            await relay(events_left, run)

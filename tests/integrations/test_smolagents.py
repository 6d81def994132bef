"""What is particular to smolagents: steps in threads, agents that write code, plans."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("smolagents", reason="smolagents is not installed")

from smolagents import CodeAgent, ToolCallingAgent
from smolagents.agents import LogLevel
from smolagents.models import ChatMessageStreamDelta
from smolagents.monitoring import TokenUsage

from catenary import UserWebSocketEmitter
from catenary.fold import RunStatus
from catenary.integrations.smolagents import relay
from tests.integrations.frameworks.script import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Call,
    Hanging,
    Say,
    Script,
    Think,
)
from tests.integrations.frameworks.small_agents import ScriptedModel, answer, as_tool

QUIET = LogLevel.OFF
ANSWER = Say("<code>\nfinal_answer(2)\n</code>")


class WritingModel(ScriptedModel):
    """Says its turns as they are: an agent that writes code answers in code."""

    def generate_stream(self, messages: Any, **options: Any) -> Iterator[ChatMessageStreamDelta]:
        for piece in self._turns.pop(0):
            assert isinstance(piece, Say)
            yield ChatMessageStreamDelta(content=piece.text)
        usage = TokenUsage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS)
        yield ChatMessageStreamDelta(token_usage=usage)


def search(q: str) -> str:
    """Search."""
    return f"found {q}"


def writing(turns: Script, **options: Any) -> CodeAgent:
    model = WritingModel(turns, asyncio.get_running_loop())
    return CodeAgent(tools=[], model=model, verbosity_level=QUIET, **options)


@pytest.mark.parametrize("stream_outputs", [True, False])
async def test_code_is_a_call_of_the_interpreter(
    emitter: UserWebSocketEmitter, stream_outputs: bool
) -> None:
    """What the model writes is its message, what it returns ends the call; then the answer."""
    turns = [[Say("I count. "), Say("<code>\n1 + 1\n</code>")], [ANSWER]]
    agent = writing(turns, stream_outputs=stream_outputs)
    async with emitter.run() as run:
        assert await relay(agent.run("Which?", stream=True), run) == 2
    assert [tool.tool_name for tool in run.state.tools] == ["python_interpreter"] * 2
    assert run.state.tools[0].tool_input == "1 + 1"
    assert run.state.tools[0].tool_output == 2
    said = [message.text for message in run.state.messages]
    assert len(said) == 3
    assert said[0].startswith("I count.")
    assert said[2] == "2"


async def test_code_that_fails_is_a_call_that_failed(emitter: UserWebSocketEmitter) -> None:
    """The agent goes on with its next step."""
    agent = writing([[Say("<code>\n1 / 0\n</code>")], [ANSWER]])
    async with emitter.run() as run:
        assert await relay(agent.run("Which?", stream=True), run) == 2
    assert [tool.error for tool in run.state.tools] == ["AgentExecutionError", None]
    assert run.state.status is RunStatus.COMPLETED


@pytest.mark.parametrize("stream_outputs", [True, False])
async def test_a_plan_is_a_message(emitter: UserWebSocketEmitter, stream_outputs: bool) -> None:
    turns = [[Say("I ask "), Say("nobody.")], [ANSWER]]
    agent = writing(turns, stream_outputs=stream_outputs, planning_interval=5)
    async with emitter.run() as run:
        await relay(agent.run("Which?", stream=True), run)
    said = [message.text for message in run.state.messages]
    assert len(said) == 3
    assert "I ask nobody." in said[0]
    assert run.state.usage["requests"] == 2


async def test_messages_that_come_whole_are_said(emitter: UserWebSocketEmitter) -> None:
    """Without ``stream_outputs``; the calls and the answer are the same."""
    loop = asyncio.get_running_loop()
    turns: Script = [
        [Think("I search."), Call("call_1", "search", ('{"q": "bridges"}',))],
        [Say("Two.")],
    ]
    model = ScriptedModel(turns, loop)
    agent = ToolCallingAgent(tools=[as_tool(search, loop)], model=model, verbosity_level=QUIET)
    async with emitter.run() as run:
        assert await relay(agent.run("Which?", stream=True), run) == "Two."
    assert [message.text for message in run.state.messages] == ["I search.", "Two."]
    (tool,) = run.state.tools
    assert (tool.tool_call_id, tool.tool_output) == ("call_1", "found bridges")


async def test_an_agent_that_has_used_up_its_steps_answers(
    emitter: UserWebSocketEmitter,
) -> None:
    """Its last step is said and counted once."""
    agent = writing([[Say("<code>\n1 + 1\n</code>")], [Say("Nothing.")]], max_steps=1)
    async with emitter.run() as run:
        assert await relay(agent.run("Which?", stream=True), run) == "Nothing."
    assert len(run.state.messages) == 2
    assert len(run.state.tools) == 1
    assert run.state.usage["requests"] == 1


async def test_a_managed_agent_is_a_tool(emitter: UserWebSocketEmitter) -> None:
    """smolagents tells nothing of its steps, but what it returned."""
    loop = asyncio.get_running_loop()
    expert = ToolCallingAgent(
        tools=[],
        model=ScriptedModel([[Say("I know.")]], loop),
        name="expert",
        description="Knows.",
        verbosity_level=QUIET,
    )
    turns: Script = [[Call("call_1", "expert", ('{"task": "Which?"}',))], [Say("Two.")]]
    boss = ToolCallingAgent(
        tools=[],
        managed_agents=[expert],
        model=ScriptedModel(turns, loop),
        verbosity_level=QUIET,
    )
    async with emitter.run() as run:
        await relay(boss.run("Which?", stream=True), run)
    (tool,) = run.state.tools
    assert tool.tool_name == "expert"
    assert "I know." in str(tool.tool_output)


async def test_a_cancel_does_not_wait_for_the_step_at_work(
    emitter: UserWebSocketEmitter,
) -> None:
    """The run ends at once; the step ends when it likes, and no other follows."""
    release, calls = threading.Event(), []

    def wait(q: str) -> str:
        """Wait."""
        calls.append(q)
        release.wait(10)
        return q

    script = [[Call(f"call_{n}", "wait", (f'{{"q": "{n}"}}',))] for n in range(2)]
    before = threading.active_count()
    handle = emitter.start_run(answer, [*script, [Say("-")]], [wait])
    async with asyncio.timeout(10):
        while not calls:
            await asyncio.sleep(0.005)
        await emitter.cancel_run(handle.run_id)
        await handle.wait()
        release.set()
        while threading.active_count() > before:
            await asyncio.sleep(0.005)
    state = emitter.log.folded(emitter.stream, emitter.stream.runs[handle.run_id])
    assert state.status is RunStatus.CANCELLED
    assert [tool.error for tool in state.tools] == ["it was cancelled"]
    assert calls == ["0"]


async def test_the_loop_goes_on_while_a_step_works(emitter: UserWebSocketEmitter) -> None:
    """A model that blocks its thread blocks nothing else."""
    hanging = Hanging()
    handle = emitter.start_run(answer, [[Say("Two "), hanging.piece]])
    async with asyncio.timeout(10):
        await hanging.has_begun.wait()
        await emitter.flush()
        await emitter.cancel_run(handle.run_id)
        await handle.wait()
    state = emitter.log.folded(emitter.stream, emitter.stream.runs[handle.run_id])
    assert state.text == "Two "

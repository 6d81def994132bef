"""What is particular to Pydantic AI: output tools, deferred tools, tools of the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pydantic
import pytest

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")

from pydantic_ai import (
    Agent,
    DeferredToolRequests,
    DeferredToolResults,
    NativeToolCallPart,
    NativeToolReturnPart,
    ToolDenied,
)
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, BuiltinToolCallsReturns, FunctionModel
from pydantic_ai.models.test import TestModel

from catenary import UserWebSocketEmitter
from catenary.fold import RunStatus
from catenary.integrations.pydantic_ai import RelayHandler, relay
from tests.integrations.frameworks.pydantic_agents import agent, model
from tests.integrations.frameworks.script import Call, Say


async def test_the_result_is_returned(emitter: UserWebSocketEmitter) -> None:
    """As Pydantic AI makes it, with its messages and its usage."""
    async with emitter.run() as run:
        result = await relay(agent([[Say("Two.")]], []).run_stream_events("Which?"), run)
    assert result.output == "Two."
    assert len(result.all_messages()) == 2
    assert run.state.usage["total_tokens"] == result.usage.total_tokens


async def test_its_test_model_is_relayed(emitter: UserWebSocketEmitter) -> None:
    """``TestModel`` calls every tool, and answers with what they returned."""

    def search(q: str) -> str:
        return f"found {q}"

    async with emitter.run() as run:
        made = Agent(TestModel(), tools=[search])
        result = await relay(made.run_stream_events("Which?"), run)
    assert run.state.text == result.output == '{"search":"found a"}'
    assert [tool.tool_output for tool in run.state.tools] == ["found a"]


class City(pydantic.BaseModel):
    name: str


async def test_an_output_tool_is_a_tool(emitter: UserWebSocketEmitter) -> None:
    """So the user sees a structured answer grow, and its end."""
    made = Agent(
        model([[Call("call_1", "final_result", ('{"na', 'me": "Bern"}'))]]), output_type=City
    )
    async with emitter.run() as run:
        result = await relay(made.run_stream_events("Which?"), run)
    assert result.output == City(name="Bern")
    (tool,) = run.state.tools
    assert (tool.tool_name, tool.tool_input) == ("final_result", {"name": "Bern"})
    assert [message.text for message in run.state.messages] == ['{"name": "Bern"}']


async def test_an_answer_that_is_refused_is_a_tool_that_failed(
    emitter: UserWebSocketEmitter,
) -> None:
    """The model tries again in its next message."""
    answers = ('{"nam": 1}',), ('{"name": "Bern"}',)
    script = [[Call(f"call_{n}", "final_result", pieces)] for n, pieces in enumerate(answers)]
    async with emitter.run() as run:
        await relay(Agent(model(script), output_type=City).run_stream_events("Which?"), run)
    assert [(tool.tool_call_id, tool.error) for tool in run.state.tools] == [
        ("call_0", "it is tried again"),
        ("call_1", None),
    ]


def cautious() -> Agent[None, str | DeferredToolRequests]:
    calls = [Call(f"call_{n}", "delete", (f'{{"path": "{n}"}}',)) for n in (1, 2)]
    made: Agent[None, str | DeferredToolRequests] = Agent(
        model([[*calls, Call("call_3", "search", ('{"q": "x"}',))], [Say("Done.")]]),
        output_type=[str, DeferredToolRequests],
    )

    @made.tool_plain(requires_approval=True)
    async def delete(path: str) -> str:
        return f"deleted {path}"

    @made.tool_plain
    async def search(q: str) -> str:
        return f"found {q}"

    return made


async def test_tools_that_wait_for_an_approval_are_ended(emitter: UserWebSocketEmitter) -> None:
    """Nothing stays open; with the answers each is called again, under its id."""
    made = cautious()
    async with emitter.run() as run:
        asked = await relay(made.run_stream_events("Which?"), run)
    assert isinstance(asked.output, DeferredToolRequests)
    ended = {tool.tool_call_id: tool for tool in run.state.tools}
    assert ended["call_3"].tool_output == "found x"
    assert {ended[call].error for call in ("call_1", "call_2")} == {"it waits for an answer"}
    answers = DeferredToolResults(approvals={"call_1": True, "call_2": ToolDenied("no")})
    async with emitter.run() as again:
        await relay(
            made.run_stream_events(
                message_history=asked.all_messages(), deferred_tool_results=answers
            ),
            again,
        )
    ended = {tool.tool_call_id: tool for tool in again.state.tools}
    assert ended["call_1"].tool_output == "deleted 1"
    assert ended["call_2"].error == "it was denied"
    assert (again.state.text, again.state.status) == ("Done.", RunStatus.COMPLETED)


async def test_tools_of_the_provider_are_tools(emitter: UserWebSocketEmitter) -> None:
    """They come within the model's response, call and result."""

    async def stream(
        messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | BuiltinToolCallsReturns]:
        yield {0: NativeToolCallPart("web_search", {"query": "bridges"}, tool_call_id="ws_1")}
        yield {1: NativeToolReturnPart("web_search", ["a bridge"], tool_call_id="ws_1")}
        yield "One."

    async with emitter.run() as run:
        made = Agent(FunctionModel(stream_function=stream))
        await relay(made.run_stream_events("Which?"), run)
    (tool,) = run.state.tools
    assert (tool.tool_name, tool.tool_input) == ("web_search", {"query": "bridges"})
    assert (tool.tool_output, run.state.text) == (["a bridge"], "One.")


async def test_a_handler_counts_what_a_run_took(emitter: UserWebSocketEmitter) -> None:
    async with emitter.run() as run:
        async with RelayHandler(run) as handler:
            result = await agent([[Say("Two.")]], []).run("Which?", event_stream_handler=handler)
        assert run.state.text == result.output
    assert run.state.usage["total_tokens"] == result.usage.total_tokens

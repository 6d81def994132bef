"""Pydantic AI with its ``FunctionModel``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests, ModelRetry
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingCalls,
    DeltaThinkingPart,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)

from catenary import Run
from catenary.answering import Answer
from catenary.integrations.pydantic_ai import RelayHandler, ask, relay, resume, suspend
from catenary.integrations.relay import PARTS
from tests.integrations.frameworks.cautious import SCRIPT, delete
from tests.integrations.frameworks.script import Call, Refused, Think, Turn, playing


def model(turns: Sequence[Turn]) -> FunctionModel:
    """Return a model that plays a turn for each response."""

    async def stream(
        messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | DeltaToolCalls | DeltaThinkingCalls]:
        responses = sum(isinstance(message, ModelResponse) for message in messages)
        index = -1
        last: type | None = None
        async for piece in playing(turns[responses]):
            if isinstance(piece, Call) or type(piece) is not last:
                index += 1
            last = type(piece)
            if isinstance(piece, Think):
                yield {index: DeltaThinkingPart(content=piece.text)}
            elif isinstance(piece, Call):
                for number, text in enumerate(piece.pieces):
                    name = piece.name if number == 0 else None
                    call = piece.id if number == 0 else None
                    yield {index: DeltaToolCall(name=name, json_args=text, tool_call_id=call)}
            else:
                yield piece.text

    return FunctionModel(stream_function=stream)


def agent(turns: Sequence[Turn], tools: Sequence[Callable[..., Any]]) -> Agent[None, str]:
    return Agent(model(turns), name="researcher", tools=[told(tool) for tool in tools])


def told(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Let the model know when a tool refuses."""
    if inspect.iscoroutinefunction(tool):

        @functools.wraps(tool)
        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return await tool(*args, **kwargs)
            except Refused as error:
                raise ModelRetry(str(error)) from error

        return call

    @functools.wraps(tool)
    def call_in_thread(*args: Any, **kwargs: Any) -> Any:
        try:
            return tool(*args, **kwargs)
        except Refused as error:
            raise ModelRetry(str(error)) from error

    return call_in_thread


async def answer(
    run: Run,
    turns: Sequence[Turn],
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    result = await relay(agent(turns, tools).run_stream_events("Which?"), run, parts=parts)
    return result.output


async def answer_with_handler(
    run: Run,
    turns: Sequence[Turn],
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    async with RelayHandler(run, parts=parts) as handler:
        result = await agent(turns, tools).run("Which?", event_stream_handler=handler)
    return result.output


class CautiousAgent:
    """An agent with a tool that requires an approval."""

    def __init__(self) -> None:
        self.agent: Agent[None, str | DeferredToolRequests] = Agent(
            model(SCRIPT), output_type=[str, DeferredToolRequests]
        )
        self.agent.tool_plain(requires_approval=True)(delete)

    async def ask(self, run: Run) -> None:
        result = await relay(self.agent.run_stream_events("Which?"), run)
        while answers := await ask(run, result):
            result = await relay(self.agent.run_stream_events(**answers), run)

    async def suspend(self, run: Run) -> None:
        assert suspend(run, await relay(self.agent.run_stream_events("Which?"), run))

    async def resume(self, run: Run, answer: Answer) -> None:
        result = await relay(self.agent.run_stream_events(**resume(answer)), run)
        assert not suspend(run, result)

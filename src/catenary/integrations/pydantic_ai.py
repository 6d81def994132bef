"""
Pydantic AI: the events of an agent's run, in a run of the log.

::

    async def answer(run: Run, question: str) -> str:
        result = await relay(agent.run_stream_events(question), run)
        return result.output
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Collection
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic_ai import (
    AgentRunResult,
    DeferredToolRequestsEvent,
    NativeToolCallPart,
    NativeToolReturnPart,
    PartDeltaEvent,
    PartStartEvent,
    RunContext,
    RunUsage,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
    ToolReturnPart,
)
from pydantic_ai.agent import AgentRunEvents
from pydantic_ai.messages import ToolCallEvent, ToolResultEvent

from catenary.context import new_id
from catenary.encoding import encode
from catenary.integrations.relay import PARTS, WAITS, Part, Relay, failure, parsed
from catenary.integrations.usage import Usage
from catenary.runs import Run

T = TypeVar("T")


async def relay(
    events: AbstractAsyncContextManager[AgentRunEvents[T]],
    run: Run,
    *,
    parts: Collection[str] = PARTS,
) -> AgentRunResult[T]:
    """
    Relay the run of an agent that ``agent.run_stream_events(…)`` begins; return its result.

    Each response of the model is one message. ``parts`` says which parts of it
    are said. What the agent raises comes through; a cancel of ``run`` stops the
    agent. An agent that a tool calls has its own run: relay it within
    ``current_run().child(…)``.

    Raises:
        UsageError: If a part is none.
    """
    async with Relay(run, parts=parts) as to, events as stream:
        telling = _Telling(to)
        async for event in stream:
            await telling.take(event)
        result = stream.result
        assert result is not None, "the last event brings it"
        to.add_usage(_usage(stream.usage))
        return result


class RelayHandler:
    """
    An ``event_stream_handler`` that relays: for ``agent.run`` and whatever else takes one.

    ::

        async with RelayHandler(run) as handler:
            result = await agent.run(question, event_stream_handler=handler)
    """

    def __init__(self, run: Run, *, parts: Collection[str] = PARTS) -> None:
        self._relay = Relay(run, parts=parts)
        self._telling = _Telling(self._relay)
        self._usage: RunUsage | None = None

    async def __call__(self, context: RunContext[Any], events: AsyncIterable[Any]) -> None:
        """Take the events of one step of the agent."""
        self._usage = context.usage
        async for event in events:
            await self._telling.take(event)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._relay.leave(error)
        if self._usage is not None:
            self._relay.add_usage(_usage(self._usage))


class _Telling:
    """What one agent's events tell, one after the other."""

    def __init__(self, to: Relay) -> None:
        self._to = to
        self._message_id = new_id("m")
        self._calls: dict[int, str] = {}

    async def take(self, event: object) -> None:
        if isinstance(event, PartStartEvent):
            if event.index == 0:
                self._message_id = new_id("m")
                self._calls.clear()
            await self._part(event.index, event.part)
        elif isinstance(event, PartDeltaEvent):
            await self._delta(event.index, event.delta)
        elif isinstance(event, ToolCallEvent):
            part = event.part
            await self._to.begin_tool(
                part.tool_name, parsed(part.args), tool_call_id=part.tool_call_id
            )
        elif isinstance(event, ToolResultEvent):
            await self._result(event.part)
        elif isinstance(event, DeferredToolRequestsEvent):
            for part in (*event.requests.approvals, *event.requests.calls):
                await self._to.end_tool(part.tool_call_id, error=WAITS)

    async def _part(self, index: int, part: object) -> None:
        if isinstance(part, TextPart):
            await self._say(part.content)
        elif isinstance(part, ThinkingPart):
            await self._say(part.content, Part.REASONING)
        elif isinstance(part, ToolCallPart):
            self._calls[index] = part.tool_call_id
            await self._input(index, part.args)
        elif isinstance(part, NativeToolCallPart):
            await self._to.begin_tool(
                part.tool_name, parsed(part.args), tool_call_id=part.tool_call_id
            )
        elif isinstance(part, NativeToolReturnPart):
            await self._result(part)

    async def _delta(self, index: int, delta: object) -> None:
        if isinstance(delta, TextPartDelta):
            await self._say(delta.content_delta)
        elif isinstance(delta, ThinkingPartDelta):
            await self._say(delta.content_delta, Part.REASONING)
        elif isinstance(delta, ToolCallPartDelta):
            await self._input(index, delta.args_delta)

    async def _say(self, text: str | None, part: Part = Part.TEXT) -> None:
        if text:
            await self._to.say(text, message_id=self._message_id, part=part)

    async def _input(self, index: int, arguments: str | dict[str, Any] | None) -> None:
        call = self._calls.get(index)
        if arguments and call is not None:
            text = arguments if isinstance(arguments, str) else encode(arguments).decode()
            await self._to.say_input(text, message_id=self._message_id, tool_call_id=call)

    async def _result(self, part: ToolReturnPart | NativeToolReturnPart) -> None:
        await self._to.end_tool(
            part.tool_call_id,
            part.content,
            error=None if part.outcome == "success" else _OUTCOMES.get(part.outcome, failure()),
            name=part.tool_name,
        )


_OUTCOMES = {"denied": "it was denied", "retried": "it is tried again"}


def _usage(usage: RunUsage) -> Usage:
    return Usage(
        requests=usage.requests,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cached_input_tokens=usage.cache_read_tokens,
        reasoning_tokens=usage.details.get("reasoning_tokens", 0),
    )

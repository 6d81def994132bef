"""
Pydantic AI: the events of an agent's run, in a run of the log.

::

    async def answer(run: Run, question: str) -> str:
        result = await relay(agent.run_stream_events(question), run)
        return result.output
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar

import msgspec
from pydantic_ai import (
    AgentRunResult,
    DeferredToolRequests,
    DeferredToolRequestsEvent,
    DeferredToolResults,
    ModelMessage,
    ModelMessagesTypeAdapter,
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
    ToolApproved,
    ToolCallPart,
    ToolCallPartDelta,
    ToolDenied,
    ToolReturnPart,
)
from pydantic_ai.agent import AgentRunEvents
from pydantic_ai.messages import ToolCallEvent, ToolResultEvent

from catenary.answering import Answer
from catenary.context import new_id
from catenary.encoding import encode
from catenary.events import InputKind, InputRequested
from catenary.integrations.answers import ask_all, reason_of
from catenary.integrations.relay import (
    DENIED,
    PARTS,
    WAITS,
    Part,
    Relay,
    failure,
    fitting,
    parsed,
)
from catenary.integrations.usage import Usage
from catenary.questions import is_approved, request
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


class Resumed(TypedDict):
    """What ``agent.run_stream_events(…)`` takes to go on after its user's answers."""

    message_history: list[ModelMessage]
    deferred_tool_results: DeferredToolResults


def suspend(run: Run, result: AgentRunResult[Any]) -> bool:
    """
    End the run with questions, if the agent's output is what it asks its user.

    Returns whether it is. Each approval and each deferred call is a question,
    and the agent's messages are kept with them, at most 256 KiB; ``resume``
    makes of the answers what the agent goes on with, in a run of its own.

    Raises:
        EventTooLarge: If the messages are over the limit.
    """
    asked = _requests(result)
    if asked:
        messages = msgspec.Raw(result.all_messages_json())
        run.suspend(list(asked.values()), state={"calls": list(asked), "messages": messages})
    return bool(asked)


def resume(answer: Answer) -> Resumed:
    """Return what the agent goes on with: ``agent.run_stream_events(**resume(answer))``."""
    return Resumed(
        message_history=ModelMessagesTypeAdapter.validate_python(answer.state["messages"]),
        deferred_tool_results=_results(
            dict(zip(answer.state["calls"], answer.requests, strict=True)), answer.answers.values()
        ),
    )


async def ask(
    run: Run, result: AgentRunResult[Any], *, timeout: float | None = None
) -> Resumed | None:
    """
    Ask what the agent asks its user, and wait within the run; None if it asks nothing.

    ::

        result = await relay(agent.run_stream_events(question), run)
        while answers := await ask(run, result):
            result = await relay(agent.run_stream_events(**answers), run)

    Raises:
        TimeoutError: If nobody answered within ``timeout`` seconds.
    """
    asked = _requests(result)
    if not asked:
        return None
    answers = await ask_all(run, asked.values(), timeout=timeout)
    return Resumed(
        message_history=result.all_messages(), deferred_tool_results=_results(asked, answers)
    )


def _requests(result: AgentRunResult[Any]) -> dict[str, InputRequested]:
    """Return the questions to the user, by the ids of the calls that wait for them."""
    deferred = result.output
    if not isinstance(deferred, DeferredToolRequests):
        return {}
    kinds = [(InputKind.APPROVAL, deferred.approvals), (InputKind.QUESTION, deferred.calls)]
    return {
        part.tool_call_id: request(
            kind=kind,
            tool_call_id=fitting(part.tool_call_id),
            tool_name=part.tool_name,
            tool_input=parsed(part.args),
        )
        for kind, parts in kinds
        for part in parts
    }


def _results(asked: Mapping[str, InputRequested], answers: Iterable[Any]) -> DeferredToolResults:
    results = DeferredToolResults()
    for (call, one), answer in zip(asked.items(), answers, strict=True):
        if one.kind is InputKind.QUESTION:
            results.calls[call] = answer
        elif is_approved(answer):
            results.approvals[call] = ToolApproved()
        else:
            reason = reason_of(answer)
            results.approvals[call] = ToolDenied(reason) if reason else ToolDenied()
    return results


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
        # Before 2.60 the part that asks for another try was one without an outcome.
        outcome = getattr(part, "outcome", "retried")
        await self._to.end_tool(
            part.tool_call_id,
            part.content,
            error=None if outcome == "success" else _OUTCOMES.get(outcome, failure()),
            name=part.tool_name,
        )


_OUTCOMES = {"denied": DENIED, "retried": "it is tried again"}


def _usage(usage: RunUsage) -> Usage:
    return Usage(
        requests=usage.requests,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cached_input_tokens=usage.cache_read_tokens,
        reasoning_tokens=usage.details.get("reasoning_tokens", 0),
    )

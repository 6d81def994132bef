"""
CrewAI: what a crew does, in a run of the log.

::

    async def answer(run: Run, question: str) -> str:
        crew = Crew(agents=[researcher], tasks=[task])
        return (await relay(crew, run, inputs={"question": question})).raw

A model made with ``LLM(…, stream=True)`` brings its messages in pieces.
"""

# Not every environment that checks this has the package.
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
from collections.abc import Collection
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from crewai import Crew, CrewOutput
from crewai.events import (
    AgentExecutionCompletedEvent,
    AgentExecutionErrorEvent,
    AgentExecutionStartedEvent,
    LiteAgentExecutionCompletedEvent,
    LiteAgentExecutionErrorEvent,
    LiteAgentExecutionStartedEvent,
    LLMCallCompletedEvent,
    LLMStreamChunkEvent,
    ToolUsageErrorEvent,
    ToolUsageFinishedEvent,
    ToolUsageStartedEvent,
)

# There is no public name for it; what crews stream leaves out what tools return.
from crewai.events.stream_context import add_stream_sink
from crewai.events.types.llm_events import LLMCallType, LLMThinkingChunkEvent
from crewai.hooks import HookAborted
from crewai.types.usage_metrics import UsageMetrics

from catenary.errors import RunFailed, UsageError
from catenary.integrations.relay import PARTS, Part, Relay, failure, parsed
from catenary.integrations.usage import Usage
from catenary.runs import Run
from catenary.threads import call_in_thread


async def relay(
    crew: Crew, run: Run, *, parts: Collection[str] = PARTS, **given: Any
) -> CrewOutput:
    """
    Let ``crew.kickoff(**given)`` work in a thread, relay what it tells, and return its output.

    Each call of a model is one message. The agent of the crew's last task speaks
    in ``run``; those of the tasks before it, and those that work is delegated to,
    have sub-runs. Tool calls bear ids of CrewAI's, for it does not tell the
    model's. Tools find their run with ``current_run()``. ``parts`` says which
    parts of messages are said. What the crew raises comes through. A cancel of
    ``run`` ends it at once, and the crew stops where it would tell something next.

    Raises:
        UsageError: If a part is none, or the crew was made with ``stream=True``.
    """
    if crew.stream:
        raise UsageError(
            "make the crew without stream=True, and its models with it: LLM(…, stream=True)"
        )
    async with Relay(run, parts=parts) as to:
        last = crew.tasks[-1].id if crew.tasks else None
        return await _Listening(_Telling(to, last)).kickoff(crew, given)


class _State(enum.Enum):
    AT_WORK = enum.auto()
    DONE = enum.auto()
    """What the crew left behind goes on, and is not told."""
    STOPPED = enum.auto()
    """Whoever tells something is stopped."""


class _Listening:
    """
    A crew at work in threads, each of which waits until what it told is in the log.

    So no more is told than the log takes, and the loop is free.
    """

    def __init__(self, telling: _Telling) -> None:
        self._telling = telling
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._state = _State.AT_WORK
        self._problem: BaseException | None = None

    async def kickoff(self, crew: Crew, given: dict[str, Any]) -> Any:
        try:
            output = await call_in_thread(
                lambda: self._kickoff(crew, given), name="catenary crewai"
            )
        except Exception as error:
            if self._problem is not None:
                raise self._problem from error
            raise
        else:
            self._state = _State.DONE
            return output
        finally:
            if self._state is _State.AT_WORK:
                self._state = _State.STOPPED
            for task in self._tasks:
                task.cancel()

    def _kickoff(self, crew: Crew, given: dict[str, Any]) -> Any:
        _LISTENING.set(self)
        add_stream_sink(self._hear)
        return crew.kickoff(**given)

    def _hear(self, source: object, event: Any) -> None:
        """Hear of an event, on the thread where it happens."""
        # A crew that a tool relays inherits what listens to the one that calls the tool.
        if _LISTENING.get() is not self:
            return
        if self._state is _State.AT_WORK and _is_told(event):
            self._wait_for(event)
        if self._state is _State.STOPPED:
            raise HookAborted("its run has ended", source="catenary")

    def _wait_for(self, event: Any) -> None:
        if asyncio._get_running_loop() is self._loop:
            raise UsageError(
                "a crew works in a thread: start it with relay(…) or asyncio.to_thread"
            )
        told = asyncio.run_coroutine_threadsafe(self._tell(event), self._loop)
        concurrent.futures.wait((told,))
        problem = None if told.cancelled() else told.exception()
        if problem is not None:
            self._problem, self._state = self._problem or problem, _State.STOPPED

    async def _tell(self, event: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._state is _State.AT_WORK:
                await self._telling.take(event)
        finally:
            self._tasks.discard(task)


_LISTENING: Final[ContextVar[_Listening | None]] = ContextVar("catenary_crewai", default=None)

_AGENT_STARTED: Final = (AgentExecutionStartedEvent, LiteAgentExecutionStartedEvent)
_AGENT_COMPLETED: Final = (AgentExecutionCompletedEvent, LiteAgentExecutionCompletedEvent)
_AGENT_FAILED: Final = (AgentExecutionErrorEvent, LiteAgentExecutionErrorEvent)
_PIECE: Final = (LLMStreamChunkEvent, LLMThinkingChunkEvent)
_TOOL_ENDED: Final = (ToolUsageFinishedEvent, ToolUsageErrorEvent)
_TOLD: Final = (
    *_AGENT_COMPLETED,
    *_AGENT_FAILED,
    *_PIECE,
    *_TOOL_ENDED,
    LLMCallCompletedEvent,
)


def _is_told(event: Any) -> bool:
    return isinstance(event, _TOLD) or event.type.endswith("_started")


class _Work(NamedTuple):
    """One agent at work on one task."""

    agent_name: str | None
    above: str | None
    is_answer: bool


class _Telling:
    """What one crew tells. Each event names what it happens in, by the id of that one's beginning."""

    def __init__(self, to: Relay, last_task: object) -> None:
        self._to = to
        self._last_task = last_task
        self._above: dict[str, str | None] = {}
        self._works: dict[str, _Work] = {}
        self._said: set[str] = set()

    async def take(self, event: Any) -> None:
        if event.type.endswith("_started"):
            self._above[event.event_id] = event.parent_event_id
        if isinstance(event, _AGENT_STARTED):
            self._begin_agent(event)
        elif isinstance(event, _AGENT_COMPLETED):
            self._to.end_child(event.started_event_id)
        elif isinstance(event, _AGENT_FAILED):
            self._to.end_child(event.started_event_id, RunFailed("the agent failed"))
        elif isinstance(event, _PIECE):
            await self._piece(event)
        elif isinstance(event, LLMCallCompletedEvent):
            await self._message(event)
        elif isinstance(event, ToolUsageStartedEvent):
            await self._begin_tool(event.event_id, event)
        elif isinstance(event, _TOOL_ENDED):
            await self._end_tool(event)

    # Agents

    def _begin_agent(self, event: Any) -> None:
        if isinstance(event, AgentExecutionStartedEvent):
            name, task = event.agent.role, event.task
        else:
            name, task = event.agent_info.get("role"), None
        above = self._work_at(event.parent_event_id)
        is_answer = task is not None and task.id == self._last_task
        self._works[event.event_id] = _Work(name and name.strip(), above, is_answer)

    def _work_at(self, place: str | None) -> str | None:
        """Return the id of the work that something happens in."""
        while place is not None and place not in self._works:
            place = self._above.get(place)
        return place

    async def _run(self, event: Any) -> Run | None:
        """Return the sub-run that an event belongs to; None if it is the run's own."""
        return await self._run_of(self._work_at(event.parent_event_id))

    async def _run_of(self, key: str | None) -> Run | None:
        if key is None or self._works[key].is_answer:
            return None
        work = self._works[key]
        return await self._to.child(key, work.agent_name, of=await self._run_of(work.above))

    # Messages

    async def _piece(self, event: Any) -> None:
        is_thought = isinstance(event, LLMThinkingChunkEvent)
        if not is_thought:
            if event.tool_call is not None:
                return
            self._said.add(event.call_id)
        await self._say(event, event.chunk, Part.REASONING if is_thought else Part.TEXT)

    async def _message(self, event: Any) -> None:
        usage = UsageMetrics.from_provider_dict(event.usage)
        if usage is not None:
            self._to.add_usage(_usage(usage))
        is_text = event.call_type is LLMCallType.LLM_CALL and isinstance(event.response, str)
        if is_text and event.call_id not in self._said:
            await self._say(event, event.response, Part.TEXT)

    async def _say(self, event: Any, text: str, part: Part) -> None:
        # A model that no agent asks works for CrewAI itself: for its memory, or to convert an output.
        if event.agent_id is not None:
            of = await self._run(event)
            await self._to.say(text, message_id=event.call_id, part=part, of=of)

    # Tools

    async def _begin_tool(self, call: str, event: Any) -> None:
        of, given = await self._run(event), parsed(event.tool_args)
        await self._to.begin_tool(event.tool_name, given, tool_call_id=call, of=of)

    async def _end_tool(self, event: Any) -> None:
        call, output, error = event.started_event_id or event.event_id, None, None
        if isinstance(event, ToolUsageErrorEvent):
            error = failure(event.error)
        elif event.failure is not None:
            error = failure()
        else:
            output = event.output
        await self._begin_tool(call, event)
        await self._to.end_tool(call, output, error=error)


def _usage(told: UsageMetrics) -> Usage:
    return Usage(
        requests=told.successful_requests,
        input_tokens=told.prompt_tokens,
        output_tokens=told.completion_tokens,
        total_tokens=told.total_tokens,
        cached_input_tokens=told.cached_prompt_tokens,
        reasoning_tokens=told.reasoning_tokens,
    )

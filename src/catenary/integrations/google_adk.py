"""
Google ADK: the events of a runner, in a run of the log.

::

    async def answer(run: Run, question: str) -> str:
        asked = Content(role="user", parts=[Part(text=question)])
        events = runner.run_async(
            user_id="user_123", session_id="s1", new_message=asked, run_config=STREAMED
        )
        return text_of(await relay(events, run))
"""

# Not every environment that checks this has the package.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import AsyncIterable, Collection
from typing import Any, Final

from google.adk.agents.run_config import (
    RunConfig,
    StreamingMode,  # type: ignore[attr-defined, unused-ignore]
)
from google.adk.events import Event

from catenary.errors import UsageError
from catenary.integrations.relay import PARTS, Part, Relay, closing, failure
from catenary.integrations.usage import Usage
from catenary.runs import Run

STREAMED: Final = RunConfig(streaming_mode=StreamingMode.SSE)
"""With this ``run_config`` messages come in pieces, else whole."""


async def relay(events: AsyncIterable[Event], run: Run, *, parts: Collection[str] = PARTS) -> Event:
    """
    Relay what ``runner.run_async(…)`` yields; return the last event that is an answer.

    Each event of the model is one message. The agent that speaks first speaks in
    ``run``; others, and those that work in parallel, have sub-runs. ``parts``
    says which parts of messages are said. What the agent raises comes through; a
    cancel of ``run`` stops the agent.

    Raises:
        UsageError: If a part is none, or the events end without an answer.
    """
    answer: Event | None = None
    async with Relay(run, parts=parts) as to, closing(events) as stream:
        telling = _Telling(to)
        async for event in stream:
            await telling.take(event)
            if event.is_final_response():
                answer = event
    if answer is None:
        raise UsageError("the events ended without an answer: relay all of runner.run_async(…)")
    return answer


def text_of(event: Event) -> str:
    """Return the text of an answer, without what the model thought."""
    return "".join(part.text or "" for part in _parts(event) if not part.thought)


class _Telling:
    """What one runner's events tell."""

    def __init__(self, to: Relay) -> None:
        self._to = to
        self._first: str | None = None
        self._streamed: set[str] = set()

    async def take(self, event: Event) -> None:
        if event.author == "user":
            return
        of = await self._run(event) if event.content is not None else None
        for part in _parts(event):
            await self._part(event, part, of)
        if event.partial:
            self._streamed.add(event.id)
        elif event.usage_metadata is not None:
            self._to.add_usage(_usage(event.usage_metadata))

    async def _run(self, event: Event) -> Run | None:
        """Return the sub-run of an agent; None for the one that spoke first."""
        place = (event.branch, event.author)
        if self._first is None and not event.branch:
            self._first = event.author
        if event.author == self._first and not event.branch:
            return None
        return await self._to.child(place, event.author)

    async def _part(self, event: Event, part: Any, of: Run | None) -> None:
        if part.text and (event.partial or event.id not in self._streamed):
            kind = Part.REASONING if part.thought else Part.TEXT
            await self._to.say(part.text, message_id=event.id, part=kind, of=of)
        called, answered = part.function_call, part.function_response
        if called is not None and not event.partial:
            await self._to.begin_tool(called.name, called.args, tool_call_id=called.id, of=of)
        elif answered is not None:
            told = answered.response
            # So the SDK tells the model that a call was not made, or refused.
            is_failure = isinstance(told, dict) and told.keys() == {"error"}
            error = failure() if is_failure else None
            await self._to.end_tool(answered.id, _output(told), error=error, of=of)


def _parts(event: Event) -> list[Any]:
    return (event.content.parts or []) if event.content is not None else []


def _output(told: Any) -> Any:
    """Return what a tool returned: the SDK puts what is no dict into one."""
    return told["result"] if isinstance(told, dict) and told.keys() == {"result"} else told


def _usage(told: Any) -> Usage:
    thought = told.thoughts_token_count or 0
    return Usage(
        requests=1,
        input_tokens=told.prompt_token_count or 0,
        output_tokens=(told.candidates_token_count or 0) + thought,
        total_tokens=told.total_token_count or 0,
        cached_input_tokens=told.cached_content_token_count or 0,
        reasoning_tokens=thought,
    )

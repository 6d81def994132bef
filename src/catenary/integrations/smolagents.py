"""
smolagents: the steps of an agent, in a run of the log.

::

    async def answer(run: Run, question: str) -> Any:
        return await relay(agent.run(question, stream=True), run)

An agent made with ``stream_outputs=True`` brings its messages in pieces.
"""

# Not every environment that checks this has the package.
# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Generator
from typing import Any, Final

from smolagents.agents import ActionOutput, ToolOutput
from smolagents.memory import ActionStep, FinalAnswerStep, PlanningStep, ToolCall
from smolagents.models import ChatMessageStreamDelta
from smolagents.monitoring import TokenUsage

from catenary.context import new_id
from catenary.integrations.relay import PARTS, Relay, failure, parsed
from catenary.integrations.usage import Usage
from catenary.runs import Run
from catenary.threads import call_in_thread

_FINAL: Final = "final_answer"
"""The tool by which an agent answers: what it is given is said, as its last message."""


async def relay(
    steps: Generator[Any, None, None], run: Run, *, parts: Collection[str] = PARTS
) -> Any:
    """
    Relay the steps of ``agent.run(…, stream=True)``; return its final answer.

    Each step works in a thread, so the loop goes on; tools find their run with
    ``current_run()``. Each message of the model is one message, and so is the
    final answer. ``parts`` says which parts of messages are said. What the agent
    raises comes through. A cancel of ``run`` ends it at once; the step at work
    cannot be stopped, it is the last one.

    Raises:
        UsageError: If a part is none.
    """
    answer: Any = None
    async with Relay(run, parts=parts) as to:
        telling = _Telling(to)
        async for step in _in_threads(steps):
            await telling.take(step)
            if isinstance(step, FinalAnswerStep):
                answer = step.output
    return answer


_END: Final = object()


async def _in_threads(steps: Generator[Any, None, None]) -> AsyncIterator[Any]:
    """Yield the items of a generator, each made in a thread; close it when nothing works in it."""
    at_work = 0

    def left() -> None:
        nonlocal at_work
        at_work -= 1
        if is_over:
            _close(steps)

    is_over = False
    try:
        while True:
            at_work += 1
            step = await call_in_thread(
                lambda: next(steps, _END), name="catenary smolagents", on_end=left
            )
            if step is _END:
                return
            yield step
    finally:
        is_over = True
        if not at_work:
            _close(steps)


def _close(steps: Generator[Any, None, None]) -> None:
    # The first time it may yield the step that it was at, instead of ending.
    for _ in range(2):
        with contextlib.suppress(RuntimeError):
            steps.close()


class _Telling:
    """What one agent tells, step by step."""

    def __init__(self, to: Relay) -> None:
        self._to = to
        self._message_id = new_id("m")
        self._calls: dict[int, str] = {}
        self._is_said = False
        self._is_over = False
        self._open: list[str] = []
        self._last: object = None

    async def take(self, step: Any) -> None:
        if isinstance(step, ChatMessageStreamDelta):
            self._begin_message()
            await self._delta(step)
        elif isinstance(step, ToolCall):
            if step.name != _FINAL:
                self._open.append(step.id)
                await self._to.begin_tool(step.name, parsed(step.arguments), tool_call_id=step.id)
        elif isinstance(step, ToolOutput):
            if not step.is_final_answer:
                await self._to.end_tool(step.id, step.output)
        elif isinstance(step, ActionOutput):
            await self._end_open(step.output)
        elif isinstance(step, ActionStep | PlanningStep):
            # An agent that has used up its steps tells the last one twice.
            if step is not self._last:
                self._last = step
                await self._end_step(step)
        elif isinstance(step, FinalAnswerStep):
            await self._to.say(str(step.output), message_id=new_id("m"))

    def _begin_message(self) -> None:
        if self._is_over:
            self._message_id = new_id("m")
            self._calls.clear()
            self._is_over = self._is_said = False

    async def _delta(self, delta: ChatMessageStreamDelta) -> None:
        if delta.content:
            self._is_said = True
            await self._to.say(delta.content, message_id=self._message_id)
        for call in delta.tool_calls or ():
            given = call.function
            if call.id and call.index is not None and given is not None and given.name != _FINAL:
                self._calls[call.index] = call.id
            id = self._calls.get(call.index) if call.index is not None else None
            if id is not None and given is not None and isinstance(given.arguments, str):
                await self._to.say_input(
                    given.arguments, message_id=self._message_id, tool_call_id=id
                )

    async def _end_open(self, output: Any, error: str | None = None) -> None:
        """End the calls of which no more is told than what came of their step."""
        for call in self._open:
            await self._to.end_tool(call, output, error=error)
        self._open.clear()

    async def _end_step(self, step: ActionStep | PlanningStep) -> None:
        error = getattr(step, "error", None)
        if error is not None:
            await self._end_open(None, failure(error))
        self._begin_message()
        said = step.plan if isinstance(step, PlanningStep) else step.model_output
        if not self._is_said and isinstance(said, str):
            await self._to.say(said, message_id=self._message_id)
        if step.token_usage is not None:
            self._to.add_usage(_usage(step.token_usage))
        self._is_over = True


def _usage(usage: TokenUsage) -> Usage:
    return Usage(
        requests=1,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
    )

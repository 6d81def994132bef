"""
OpenAI Agents SDK: what a streamed run tells, in a run of the log.

::

    async def answer(run: Run, question: str) -> str:
        result = await relay(Runner.run_streamed(agent, question), run)
        return str(result.final_output)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from agents import (
    Agent,
    AgentUpdatedStreamEvent,
    RawResponsesStreamEvent,
    RunContextWrapper,
    RunHooks,
    RunItemStreamEvent,
    RunResultStreaming,
    RunState,
    Tool,
    default_tool_error_function,
)
from agents.items import (
    HandoffCallItem,
    HandoffOutputItem,
    ToolApprovalItem,
    ToolCallItem,
    ToolCallOutputItem,
)
from agents.tool_context import ToolContext

from catenary.answering import Answer
from catenary.context import new_id
from catenary.events import InputKind, InputRequested
from catenary.integrations.answers import ask_all, reason_of
from catenary.integrations.relay import (
    DENIED,
    PARTS,
    Part,
    Relay,
    closing,
    failure,
    fitting,
    parsed,
)
from catenary.integrations.usage import Usage
from catenary.questions import is_approved, request
from catenary.runs import Run

_TEXT: Final = frozenset({"response.output_text.delta", "response.refusal.delta"})
_REASONING: Final = frozenset(
    {"response.reasoning_summary_text.delta", "response.reasoning_text.delta"}
)
_INPUT: Final = frozenset(
    {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
)
_HOSTED: Final = frozenset(
    {
        "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call",
        "mcp_call",
    }
)  # fmt: skip
"""Calls that the model's provider makes: they are told of when they have ended."""

_FAILED: Final = default_tool_error_function(RunContextWrapper(None), Exception())
"""How the SDK begins to tell the model of a tool that raised."""


async def relay(
    result: RunResultStreaming,
    run: Run,
    *,
    parts: Collection[str] = PARTS,
    hooks: RelayHooks | None = None,
) -> RunResultStreaming:
    """
    Relay what ``Runner.run_streamed(…)`` began; return it when it is complete.

    Each response of a model is one message. An agent that is handed the
    conversation speaks in a sub-run, until it hands it on. ``parts`` says which
    parts of messages are said. With ``hooks``, given to ``run_streamed`` too,
    each of several parallel tools ends when it does; without, all end with the
    last, for so the SDK tells it. What the agent raises comes through; a cancel
    of ``run`` stops the agent.

    Raises:
        UsageError: If a part is none.
    """
    async with Relay(run, parts=parts) as to:
        telling, before = Telling(to, result), _usage(result)
        if hooks is not None:
            hooks.telling = telling
        async with closing(result.stream_events()) as events:
            try:
                async for event in events:
                    await telling.take(event)
            except BaseException:
                # Closing the events would else wait until the agent has done its work.
                result.cancel()
                raise
        # What an approved run goes on with was counted before.
        to.add_usage(_usage(result) - before)
    return result


class RelayHooks(RunHooks[Any]):
    """
    Hooks that tell a relay of each tool's end as it happens.

    ::

        hooks = RelayHooks()
        result = await relay(Runner.run_streamed(agent, question, hooks=hooks), run, hooks=hooks)
    """

    def __init__(self) -> None:
        self.telling: Telling | None = None

    async def on_tool_start(
        self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool
    ) -> None:
        """Begin the call, if the stream has not told of it yet."""
        if self.telling is not None and isinstance(context, ToolContext):
            await self.telling.begin(
                context.tool_name, context.tool_arguments, context.tool_call_id
            )

    async def on_tool_end(
        self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool, result: object
    ) -> None:
        """End the call."""
        if self.telling is not None and isinstance(context, ToolContext):
            await self.telling.end(context.tool_call_id, result)


def suspend(run: Run, result: RunResultStreaming) -> bool:
    """
    End the run with questions, if the agent waits for approvals of its user.

    Returns whether it does. The state of the agent is kept with them, at most
    256 KiB; ``resume`` makes of the answers what it goes on with, in a run of
    its own.

    Raises:
        EventTooLarge: If the state is over the limit.
    """
    if result.interruptions:
        run.suspend(
            [_request(item) for item in result.interruptions],
            state={"agent": result.to_state().to_json()},
        )
    return bool(result.interruptions)


async def resume(answer: Answer, agent: Agent[Any]) -> RunState[Any]:
    """Return what ``Runner.run_streamed(agent, …)`` goes on with; ``agent`` is the first one."""
    state = await RunState.from_json(agent, answer.state["agent"])
    _decide(state, state.get_interruptions(), answer.answers.values())
    return state


async def ask(
    run: Run, result: RunResultStreaming, *, timeout: float | None = None
) -> RunState[Any] | None:
    """
    Ask for the approvals that the agent waits for, and wait within the run; None if for none.

    ::

        result = await relay(Runner.run_streamed(agent, question), run)
        while state := await ask(run, result):
            result = await relay(Runner.run_streamed(agent, state), run)

    Raises:
        TimeoutError: If nobody answered within ``timeout`` seconds.
    """
    if not result.interruptions:
        return None
    answers = await ask_all(run, map(_request, result.interruptions), timeout=timeout)
    state = result.to_state()
    _decide(state, result.interruptions, answers)
    return state


def _request(item: ToolApprovalItem) -> InputRequested:
    given = _field(item.raw_item, "arguments")
    return request(
        kind=InputKind.APPROVAL,
        tool_call_id=fitting(item.call_id) if item.call_id else None,
        tool_name=item.tool_name,
        tool_input=parsed(given),
    )


def _decide(state: RunState[Any], items: list[ToolApprovalItem], answers: Iterable[Any]) -> None:
    for item, answer in zip(items, answers, strict=True):
        if is_approved(answer):
            state.approve(item)
        else:
            state.reject(item, rejection_message=reason_of(answer))


class Telling:
    """What one streamed run tells, one event after the other."""

    def __init__(self, to: Relay, result: RunResultStreaming) -> None:
        self._to = to
        self._result = result
        self._first = result.current_agent
        self._of: Run | None = None
        self._message_id = new_id("m")
        self._calls: dict[int, str] = {}

    async def take(self, event: object) -> None:
        if isinstance(event, RawResponsesStreamEvent):
            await self._raw(event.data)
        elif isinstance(event, RunItemStreamEvent):
            await self._item(event.item)
        elif isinstance(event, AgentUpdatedStreamEvent):
            await self._handed_to(event.new_agent)

    async def _handed_to(self, agent: Agent[Any]) -> None:
        self._to.end_child(_HANDED)
        self._of = None
        if agent is not self._first:
            self._of = await self._to.child(_HANDED, agent.name)

    async def _raw(self, data: Any) -> None:
        if data.type == "response.created":
            self._message_id = new_id("m")
            self._calls.clear()
        elif data.type in _TEXT:
            await self._to.say(data.delta, message_id=self._message_id, of=self._of)
        elif data.type in _REASONING:
            await self._to.say(
                data.delta, message_id=self._message_id, part=Part.REASONING, of=self._of
            )
        elif data.type == "response.output_item.added":
            call = getattr(data.item, "call_id", None)
            if call:
                self._calls[data.output_index] = call
        elif data.type in _INPUT and data.output_index in self._calls:
            call = self._calls[data.output_index]
            await self._to.say_input(
                data.delta, message_id=self._message_id, tool_call_id=call, of=self._of
            )

    async def _item(self, item: object) -> None:
        if isinstance(item, ToolCallItem):
            await self._called(item)
        elif isinstance(item, ToolCallOutputItem):
            await self.end(item.call_id or "", item.output)
        elif isinstance(item, HandoffCallItem):
            await self.begin(item.raw_item.name, item.raw_item.arguments, item.raw_item.call_id)
        elif isinstance(item, HandoffOutputItem):
            await self.end(_field(item.raw_item, "call_id"), {"agent": item.target_agent.name})

    async def _called(self, item: ToolCallItem) -> None:
        if _needs_approval(item):
            # It begins once it is approved, which may be in a run that goes on with this one.
            return
        call = item.call_id or new_id("call")
        await self.begin(*_told(item), call)
        if _field(item.raw_item, "type") in _HOSTED:
            await self.end(call, _field(item.raw_item, "output"))

    async def begin(self, name: str, given: Any, call: str) -> None:
        await self._to.begin_tool(name, parsed(given), tool_call_id=call, of=self._of)

    async def end(self, call: str, output: object) -> None:
        name, given = self._asked(call)
        is_failure = isinstance(output, str) and output.startswith(_FAILED)
        error = failure() if is_failure else None
        if self._result.context_wrapper.is_tool_approved(name, call) is False:
            error = DENIED
        await self._to.end_tool(
            call,
            output,
            error=error,
            name=name,
            tool_input=parsed(given),
            of=self._of,
        )

    def _asked(self, call: str) -> tuple[str, Any]:
        """Return what a call that was not told of as begun is a call of."""
        if not self._to.knows(call):
            for item in self._result.new_items:
                if isinstance(item, ToolCallItem) and item.call_id == call:
                    return _told(item)
        return "tool", None


_HANDED = "handed"
_GIVEN = ("arguments", "input", "action")


def _told(item: ToolCallItem) -> tuple[str, Any]:
    """Return the name of the tool, and what it is given."""
    kind = str(_field(item.raw_item, "type") or "tool")
    given = (_field(item.raw_item, name) for name in _GIVEN)
    return (
        item.tool_name or kind.removesuffix("_call"),
        next((value for value in given if value is not None), None),
    )


def _needs_approval(item: ToolCallItem) -> bool:
    tools = {tool.name: tool for tool in item.agent.tools}
    return bool(getattr(tools.get(item.tool_name or ""), "needs_approval", False))


def _field(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)


def _usage(result: RunResultStreaming) -> Usage:
    usage = result.context_wrapper.usage
    return Usage(
        requests=usage.requests,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cached_input_tokens=usage.input_tokens_details.cached_tokens or 0,
        reasoning_tokens=usage.output_tokens_details.reasoning_tokens or 0,
    )

"""
Claude Agent SDK: the messages of a query, in a run of the log.

::

    async def answer(run: Run, question: str) -> str:
        options = ClaudeAgentOptions(include_partial_messages=True)
        result = await relay(query(prompt=question, options=options), run)
        return result.result or ""
"""

# The SDK brings a program of 250 MB, so not every environment that checks this has it.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import AsyncIterable, Collection, Mapping
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    CanUseTool,
    PermissionResult,
    PermissionResultAllow,
    PermissionResultDeny,
    ResultMessage,
    ServerToolResultBlock,
    ServerToolUseBlock,
    StreamEvent,
    TextBlock,
    ThinkingBlock,
    ToolPermissionContext,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from catenary.context import new_id
from catenary.errors import UsageError
from catenary.events import InputKind
from catenary.integrations.answers import reason_of
from catenary.integrations.relay import DENIED, PARTS, Part, Relay, closing, failure, fitting
from catenary.integrations.usage import Usage
from catenary.questions import is_approved
from catenary.runs import Run


async def relay(
    messages: AsyncIterable[Any], run: Run, *, parts: Collection[str] = PARTS
) -> ResultMessage:
    """
    Relay what ``query(…)`` or ``client.receive_response()`` tells; return its last message.

    With ``include_partial_messages=True`` messages come in pieces, else whole.
    A sub-agent speaks in a sub-run, while the tool call that asked it is open.
    ``parts`` says which parts of messages are said. The SDK raises where its
    program fails; where the agent does, the message that is returned says so
    (``is_error``). A cancel of ``run`` ends the program.

    Raises:
        UsageError: If a part is none, or the messages end without a result.
    """
    result: ResultMessage | None = None
    async with Relay(run, parts=parts) as to, closing(messages) as stream:
        telling = _Telling(to)
        async for message in stream:
            if isinstance(message, ResultMessage):
                result = message
                to.add_usage(_usage(message))
            else:
                await telling.take(message)
    if result is None:
        raise UsageError("the messages ended without a result: relay all of query(…)")
    return result


def asking(run: Run, *, timeout: float | None = None) -> CanUseTool:
    """
    Return a ``can_use_tool`` that asks the user, and lets the agent wait for the answer.

    ::

        options = ClaudeAgentOptions(can_use_tool=asking(run), include_partial_messages=True)

    The SDK asks for the calls that its permission rules do not decide. If nobody
    answers within ``timeout`` seconds, the SDK tells its program so, and the
    call does not happen.
    """

    async def may_use(
        name: str, given: dict[str, Any], context: ToolPermissionContext
    ) -> PermissionResult:
        call = context.tool_use_id
        answer = await run.ask(
            kind=InputKind.APPROVAL,
            tool_call_id=fitting(call) if call else None,
            tool_name=name,
            tool_input=given,
            timeout=timeout,
        )
        if is_approved(answer):
            return PermissionResultAllow()
        return PermissionResultDeny(message=reason_of(answer) or DENIED)

    return may_use


class _Telling:
    """What one query tells, with its sub-agents, which the id of their call names."""

    def __init__(self, to: Relay) -> None:
        self._to = to
        self._message_ids: dict[str | None, str] = {}
        self._streamed: set[str] = set()
        self._calls: dict[tuple[str | None, int], str] = {}
        self._agents: dict[str, str] = {}
        self._parents: dict[str, str | None] = {}

    async def take(self, message: Any) -> None:
        if isinstance(message, StreamEvent):
            await self._piece(message.parent_tool_use_id, message.event)
        elif isinstance(message, AssistantMessage):
            await self._said(message)
        elif isinstance(message, UserMessage) and isinstance(message.content, list):
            for block in message.content:
                if isinstance(block, ToolResultBlock):
                    await self._ended(block)

    async def _run(self, parent: str | None) -> Run | None:
        if parent is None:
            return None
        above = await self._run(self._parents.get(parent))
        return await self._to.child(parent, self._agents.get(parent, "agent"), of=above)

    async def _piece(self, parent: str | None, event: Mapping[str, Any]) -> None:
        """Take an event of the model's own stream."""
        kind = event.get("type")
        if kind == "message_start":
            message_id = event["message"]["id"]
            self._message_ids[parent] = message_id
            self._streamed.add(message_id)
        elif kind == "content_block_start":
            block = event["content_block"]
            if block.get("id"):
                self._calls[parent, event["index"]] = block["id"]
        elif kind == "content_block_delta":
            await self._delta(parent, event["index"], event["delta"])

    async def _delta(self, parent: str | None, index: int, delta: Mapping[str, Any]) -> None:
        message_id, of = self._message_ids.get(parent, "message"), await self._run(parent)
        if delta["type"] == "text_delta":
            await self._to.say(delta["text"], message_id=message_id, of=of)
        elif delta["type"] == "thinking_delta":
            await self._to.say(delta["thinking"], message_id=message_id, part=Part.REASONING, of=of)
        elif delta["type"] == "input_json_delta" and (parent, index) in self._calls:
            call = self._calls[parent, index]
            text = delta["partial_json"]
            await self._to.say_input(text, message_id=message_id, tool_call_id=call, of=of)

    async def _said(self, message: AssistantMessage) -> None:
        parent, of = message.parent_tool_use_id, await self._run(message.parent_tool_use_id)
        message_id = message.message_id or new_id("m")
        is_new = message_id not in self._streamed
        for block in message.content:
            if isinstance(block, TextBlock) and is_new:
                await self._to.say(block.text, message_id=message_id, of=of)
            elif isinstance(block, ThinkingBlock) and is_new:
                thought = block.thinking
                await self._to.say(thought, message_id=message_id, part=Part.REASONING, of=of)
            elif isinstance(block, ToolUseBlock | ServerToolUseBlock):
                self._parents[block.id] = parent
                self._agents[block.id] = block.input.get("subagent_type") or block.name
                await self._to.begin_tool(block.name, block.input, tool_call_id=block.id, of=of)
            elif isinstance(block, ServerToolResultBlock):
                await self._to.end_tool(block.tool_use_id, block.content, of=of)

    async def _ended(self, block: ToolResultBlock) -> None:
        call = block.tool_use_id
        self._to.end_child(call)
        of = await self._run(self._parents.get(call))
        error = failure() if block.is_error else None
        await self._to.end_tool(call, block.content, error=error, name="tool", of=of)


def _usage(result: ResultMessage) -> Usage:
    told = result.usage or {}
    cached = told.get("cache_read_input_tokens") or 0
    given = (told.get("input_tokens") or 0) + (told.get("cache_creation_input_tokens") or 0)
    made = told.get("output_tokens") or 0
    return Usage(
        requests=result.num_turns,
        input_tokens=given + cached,
        output_tokens=made,
        total_tokens=given + cached + made,
        cached_input_tokens=cached,
    )

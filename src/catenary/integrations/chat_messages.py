"""The messages of LangChain's chat models, as LangChain and LangGraph hand them on."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCallChunk, ToolMessage

from catenary.integrations.relay import Part, Relay, failure, parsed
from catenary.integrations.usage import Usage
from catenary.runs import Run


class Asked:
    """A tool call that a message asks for; it may never begin."""

    def __init__(self, call: str, name: str, *, is_shown: bool) -> None:
        self.call = call
        self.name = name
        self.is_shown = is_shown
        self.given: Any = ""

    @property
    def arguments(self) -> Any:
        """What the tool is given, as far as it is known."""
        return parsed(self.given)


class Messages:
    """What the messages of chat models say, and the tool calls that they ask for."""

    def __init__(self, to: Relay) -> None:
        self._to = to
        self._calls: dict[tuple[str, object], str] = {}
        self._asked: dict[str, Asked] = {}

    async def say(self, message: AIMessage, message_id: str, of: Run | None = None) -> None:
        """Say a message, or a piece of one."""
        for block in message.content_blocks:
            if block["type"] == "text":
                await self._to.say(block["text"], message_id=message_id, of=of)
            elif block["type"] == "reasoning":
                thought = block.get("reasoning") or ""
                await self._to.say(thought, message_id=message_id, part=Part.REASONING, of=of)
        for chunk in _chunks(message):
            call = self._calls.get((message_id, chunk["index"]))
            if call is not None:
                await self._to.say_input(
                    chunk["args"] or "", message_id=message_id, tool_call_id=call, of=of
                )

    def ask(self, message: AIMessage, message_id: str, *, is_shown: bool) -> None:
        """Take note of the calls that a message, or a piece of one, asks for."""
        for chunk in _chunks(message):
            place, id = (message_id, chunk["index"]), chunk["id"]
            call = self._calls.setdefault(place, id) if id else self._calls.get(place)
            if call is not None:
                asked = self._ask(call, chunk["name"] or "", is_shown=is_shown)
                asked.given += chunk["args"] or ""
        for whole in [] if isinstance(message, AIMessageChunk) else message.tool_calls:
            if whole["id"]:
                self._ask(whole["id"], whole["name"], is_shown=is_shown).given = whole["args"]

    def _ask(self, call: str, name: str, *, is_shown: bool) -> Asked:
        return self._asked.setdefault(call, Asked(call, name, is_shown=is_shown))

    def asked_for(self, call: str) -> Asked | None:
        """Return what asked for a call that begins, once."""
        return self._asked.pop(call, None)

    def asked_with(self, name: str, given: Any) -> Asked | None:
        """Return what asked for a call of which only name and input are told, once."""
        named = [asked for asked in self._asked.values() if asked.name == name]
        same = [asked for asked in named if asked.arguments == given]
        found = next(iter(same or named), None)
        return None if found is None else self._asked.pop(found.call)

    def count(self, message: AIMessage) -> None:
        """Add what a whole message took to the run's usage."""
        if message.usage_metadata is not None:
            self._to.add_usage(usage_of(message, requests=1))


def _chunks(message: AIMessage) -> list[ToolCallChunk]:
    return message.tool_call_chunks if isinstance(message, AIMessageChunk) else []


def usage_of(message: AIMessage, *, requests: int) -> Usage:
    """Return what a message, or a piece of one, says that it took."""
    usage = message.usage_metadata
    if usage is None:
        return Usage(requests=requests)
    return Usage(
        requests=requests,
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        total_tokens=usage["total_tokens"],
        cached_input_tokens=usage.get("input_token_details", {}).get("cache_read", 0),
        reasoning_tokens=usage.get("output_token_details", {}).get("reasoning", 0),
    )


async def end_tool(to: Relay, call: str, output: Any, *, of: Run | None = None) -> None:
    """End a call with what the tool returned, which may be the message for the model."""
    if not isinstance(output, ToolMessage):
        await to.end_tool(call, output, of=of)
        return
    error = failure() if output.status == "error" else None
    await to.end_tool(call, output.content, error=error, name=output.name or "tool", of=of)

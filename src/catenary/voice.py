"""
Voices: how one emitter speaks in one run.

A voice holds what the run's events share, encoded once, and turns each event
into an entry for the log.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from catenary.context import check_id
from catenary.encoding import encode
from catenary.envelope import Envelope
from catenary.errors import EventTooLarge, UsageError
from catenary.eventlog.closing import ending_entries
from catenary.eventlog.entry import Entry
from catenary.eventlog.receipt import Receipt
from catenary.events import (
    CONTROL_TYPES,
    AgentCancelled,
    AgentError,
    EventType,
    Payload,
    ToolCompleted,
    WebSocketEvent,
)
from catenary.grammar import OpenTool, Step
from catenary.redaction import REDACTED

logger = logging.getLogger("catenary.emitter")

DATA_LIMIT_BYTES = 256 * 1024

_PARTS = ("text", "reasoning", "tool_input")

Redactor = Callable[[WebSocketEvent], WebSocketEvent]


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class _Channel(msgspec.Struct, frozen=True):
    """One message and part that deltas belong to."""

    merge: str
    prefix: bytes


class Voice:
    """The entries of one run, or of no run, of one emitter."""

    __slots__ = (
        "_channels",
        "_head",
        "_limit_bytes",
        "_now_ms",
        "_redactor",
        "envelope",
        "message_id",
    )

    def __init__(
        self,
        envelope: Envelope,
        *,
        redactor: Redactor | None,
        limit_bytes: int = DATA_LIMIT_BYTES,
        now_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.envelope = envelope
        self.message_id = f"m_{envelope.run_id or envelope.thread_id}"
        """The message that deltas belong to unless they name one."""
        self._head = envelope.head
        self._now_ms = now_ms
        self._redactor = redactor
        self._limit_bytes = limit_bytes
        self._channels: dict[tuple[str | None, str, str | None], _Channel] = {}

    def delta(
        self,
        text: str,
        message_id: str | None,
        part: str,
        tool_call_id: str | None,
        key: str | None,
    ) -> Entry:
        """Return the entry of a piece of text, so built that neighbours can be joined."""
        channel = self._channels.get((message_id, part, tool_call_id))
        if channel is None:
            channel = self._open_channel(message_id, part, tool_call_id)
        if not isinstance(text, str):
            raise UsageError(f"a delta is a string, not {type(text).__name__}")
        if self._redactor is not None:
            text = self._redacted_delta(text, channel)
        encoded = encode(text)
        if len(encoded) > self._limit_bytes:
            raise EventTooLarge(EventType.AGENT_DELTA, len(encoded), self._limit_bytes)
        at = self._now_ms()
        body = b'%b%d,"data":{%b%b}}' % (self._head, at, channel.prefix, encoded)
        entry = Entry(
            "agent_delta",
            body,
            Receipt(),
            self.envelope.thread_id,
            self.envelope.run_id,
            channel.merge,
            len(body) - len(encoded) - 1,
            Step.WITHIN,
        )
        if key is not None:
            entry.key, entry.digest = key, _digest("agent_delta", encoded)
        return entry

    def _open_channel(
        self, message_id: str | None, part: str, tool_call_id: str | None
    ) -> _Channel:
        if part not in _PARTS:
            raise UsageError(f"part is one of {', '.join(_PARTS)}, not {part!r:.40}")
        for name, value in (("message_id", message_id), ("tool_call_id", tool_call_id)):
            if value:
                check_id(name, value)
        fields = {"message_id": message_id or self.message_id, "part": part}
        if tool_call_id is not None:
            fields["tool_call_id"] = tool_call_id
        merge = "\0".join((self.envelope.run_id or "", *fields.values()))
        channel = _Channel(merge, encode(fields)[1:-1] + b',"delta":')
        if len(self._channels) >= 256:
            self._channels.clear()
        self._channels[message_id, part, tool_call_id] = channel
        return channel

    def _redacted_delta(self, text: str, channel: _Channel) -> str:
        data = msgspec.json.decode(b"{" + channel.prefix + encode(text) + b"}", type=dict[str, Any])
        return str(self._redacted("agent_delta", data).get("delta", ""))

    def event(
        self,
        type: str,
        data: Any,
        *,
        step: Step = Step.ASIDE,
        tool_call_id: str = "",
        tool_name: str = "",
        merge: str | None = None,
        key: str | None = None,
        version: int | None = None,
    ) -> Entry:
        """
        Return the entry of any event; ``data`` is encoded now.

        Raises:
            EventTooLarge: If the encoded data are over the limit.
        """
        encoded = encode(data)
        if not encoded.startswith(b"{"):
            encoded = b'{"value":%b}' % encoded
        if self._redactor is not None:
            encoded = encode(self._redacted(type, msgspec.json.decode(encoded)))
        return self._entry(
            type, encoded, step, tool_call_id, tool_name, merge=merge, key=key, version=version
        )

    def _entry(
        self,
        type: str,
        encoded: bytes,
        step: Step,
        tool_call_id: str,
        tool_name: str = "",
        *,
        merge: str | None = None,
        key: str | None = None,
        version: int | None = None,
    ) -> Entry:
        if len(encoded) > self._limit_bytes:
            raise EventTooLarge(type, len(encoded), self._limit_bytes)
        at = self._now_ms()
        marked = b'"v":%d,' % version if version is not None else b""
        entry = Entry(
            type,
            b'%b%b%d,"data":%b}' % (marked, self._head, at, encoded),
            Receipt(),
            self.envelope.thread_id,
            self.envelope.run_id,
            merge,
            0,
            step,
            tool_call_id,
            OpenTool(tool_name, at) if tool_name else None,
        )
        if key is not None:
            entry.key, entry.digest = key, _digest(type, encoded)
        return entry

    def tool_end(self, data: ToolCompleted) -> Entry:
        """Return the entry of a tool's end; its output is cut to the limit, never refused."""
        type_, step, call = EventType.TOOL_COMPLETED, Step.TOOL_END, data.tool_call_id
        try:
            return self.event(type_, data, step=step, tool_call_id=call)
        except EventTooLarge as error:
            # The hook sees what will be cut: in its text it would not find its keys.
            whole = self._redacted(type_, msgspec.json.decode(encode(data)))
            failure = whole.get("error")
            cut = ToolCompleted(
                tool_name=data.tool_name,
                tool_call_id=call,
                success=data.success,
                tool_output=f"{self._cut(whole.get('tool_output'))}"
                f"… cut: {error.size_bytes:,} bytes in all",
                error=self._cut(failure) if failure is not None else None,
                duration_ms=data.duration_ms,
                truncated=True,
            )
            return self._entry(type_, encode(cut), step, call)

    def _cut(self, value: object) -> str:
        # A character takes at most six bytes in JSON, and an event holds two such texts.
        return f"{value!s:.{self._limit_bytes // 16}}"

    def ending(
        self, end: AgentError | AgentCancelled
    ) -> Callable[[dict[str, OpenTool]], list[Entry]]:
        """
        Return what makes the entries that end the run, for ``EventLog.end_run``.

        A run always ends: words over the limit are cut, and where the redaction
        hook fails there are none.
        """
        at = self._now_ms()
        fit: AgentError | AgentCancelled
        if isinstance(end, AgentError):
            message = self._words(EventType.AGENT_ERROR, end, "message") or ""
            fit = msgspec.structs.replace(end, message=message)
        else:
            reason = self._words(EventType.AGENT_CANCELLED, end, "reason")
            fit = msgspec.structs.replace(end, reason=reason)
        return lambda open_tools: ending_entries(self.envelope, open_tools, fit, at=at)

    def _words(self, type: EventType, end: AgentError | AgentCancelled, name: str) -> str | None:
        try:
            words = self._redacted(type, msgspec.json.decode(encode(end))).get(name)
        except Exception:
            logger.exception("the redaction hook failed for the end of %s", self.envelope.run_id)
            words = REDACTED
        return None if words is None else self._cut(words)

    def _redacted(self, type: str, data: dict[str, Any]) -> dict[str, Any]:
        if self._redactor is None:
            return data
        about = self.envelope
        event = WebSocketEvent(
            type=type,
            id="",
            seq=0,
            user_id=about.user_id,
            thread_id=about.thread_id,
            run_id=about.run_id,
            agent_name=about.agent_name,
            parent_run_id=about.parent_run_id,
            timestamp=self._now_ms(),
            data=data,
        )
        return self._redactor(event).data


def with_key(entry: Entry, key: str | None, asked: Payload) -> Entry:
    """
    Give an entry its idempotency key; ``asked`` is what the caller said.

    The event may say more, such as how long it took, which a repeat does not share.
    """
    if key is not None:
        entry.key, entry.digest = key, _digest(entry.type, encode(asked))
    return entry


def _digest(type: str, encoded: bytes) -> bytes:
    return hashlib.blake2b(type.encode() + b"\0" + encoded, digest_size=16).digest()


def check_custom_type(type: object) -> str:
    """
    Check the type of an application's event.

    Raises:
        UsageError: If it is a built-in name, or not a plain name.
    """
    if not isinstance(type, str) or not 0 < len(type) <= 128 or not _is_plain(type):
        raise UsageError(
            f"an event type is 1 to 128 letters, digits, '.', '_', '-', ':' or '/': {type!r:.60}"
        )
    if type in EventType.__members__.values() or type in CONTROL_TYPES:
        raise UsageError(
            f"{type!r} is a built-in type; use its verb, or a name such as 'app.{type}'"
        )
    return type


def _is_plain(type: str) -> bool:
    return type.isascii() and all(char.isalnum() or char in "._-:/" for char in type)

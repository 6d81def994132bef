"""
Events and their payloads, as docs/protocol.md defines them.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from catenary.errors import ProtocolError
from catenary.position import Position


class EventType(enum.StrEnum):
    """The built-in event types. Applications use others, with a dot in the name."""

    AGENT_STARTED = "agent_started"
    AGENT_THINKING = "agent_thinking"
    AGENT_DELTA = "agent_delta"
    TOOL_EXECUTING = "tool_executing"
    TOOL_COMPLETED = "tool_completed"
    AGENT_COMPLETED = "agent_completed"
    AGENT_ERROR = "agent_error"
    AGENT_CANCELLED = "agent_cancelled"
    INPUT_REQUESTED = "input_requested"
    INPUT_RESOLVED = "input_resolved"
    USER_MESSAGE = "user_message"
    ERASED = "erased"
    PROGRESS_UPDATE = "progress_update"


RUN_ENDS = frozenset(
    {EventType.AGENT_COMPLETED, EventType.AGENT_ERROR, EventType.AGENT_CANCELLED},
)
"""The three ends of a run; each run has exactly one."""

CONTROL_TYPES = frozenset(
    {
        "connected", "live", "gap", "heartbeat", "notice", "notice_cleared", "closing", "ping",
        "pong", "position", "position_ok", "auth", "auth_ok", "cancel_run", "answer", "ack",
        "error",
    },
)  # fmt: skip
"""Names of the wire's own messages, which no application event may take."""


class Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of the built-in payloads. Absent fields are left out on the wire."""


class AgentStarted(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """
    A run began. ``lease`` (seconds) is set for a run that is held over HTTP.

    ``in_reply_to`` is the ``message_id`` of the user's message that it answers.
    """

    task: Any = None
    lease: float | None = None
    continues_run_id: str | None = None
    in_reply_to: str | None = None


class AgentThinking(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """What the agent is thinking about."""

    thinking: str
    step: int | None = None
    total_steps: int | None = None


class AgentDelta(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a message. ``delta`` comes last, so that pieces can be joined as bytes."""

    message_id: str
    part: str = "text"
    tool_call_id: str | None = None
    delta: str = ""


class ToolExecuting(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """The agent began a tool call."""

    tool_name: str
    tool_call_id: str
    tool_input: Any = None


class ToolCompleted(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """A tool call ended; the pair is matched by ``tool_call_id``. Duration in milliseconds."""

    tool_name: str
    tool_call_id: str
    success: bool
    tool_output: Any = None
    error: Any = None
    duration_ms: float | None = None
    truncated: bool = False


class AgentCompleted(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """A run ended well. ``outcome`` is ``success`` or ``suspended``."""

    result: Any = None
    outcome: str = "success"
    usage: Any = None
    duration_ms: float | None = None


class AgentError(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """A run failed. ``holder`` names the process that was lost, if one was."""

    code: str
    message: str
    retryable: bool = False
    holder: Any = None


class AgentCancelled(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """A run was cancelled."""

    reason: str | None = None
    by: str | None = None


class InputKind(enum.StrEnum):
    """What is asked of the user: yes or no, or anything else."""

    APPROVAL = "approval"
    QUESTION = "question"


class InputRequested(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """
    The agent asks the user. ``expires_at`` is milliseconds since 1970.

    ``suspends`` is True when the run ends with the question; the answer then
    begins another run. ``tool_name`` and ``tool_input`` say what an approval is
    for, when the tool call has not begun.
    """

    request_id: str
    kind: InputKind
    question: str | None = None
    schema: Any = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    tool_input: Any = None
    expires_at: int | None = None
    suspends: bool = False


class InputResolved(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """A question has its answer. ``by`` is the user, or ``expiry`` when nobody answered."""

    request_id: str
    by: str
    answer: Any = None
    client_message_id: str | None = None


class UserMessage(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """A message of the user that was accepted, so that every tab sees it."""

    message_id: str
    content: Any
    client_message_id: str | None = None


class Erased(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """What the log held of a thread (or, without one, of the user) was erased."""

    thread_id: str | None = None


class ProgressUpdate(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """How far the work is. ``percentage`` is 0 to 100."""

    message: str | None = None
    percentage: float | None = None
    current_step: int | None = None
    total_steps: int | None = None


class WebSocketEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One event as a reader sees it.

    ``seq`` is its place in its user's log; ``from_seq`` is set on an event that
    stands for a range of them (merged deltas). ``timestamp`` is milliseconds
    since 1970, when the event was emitted.
    """

    type: str
    id: str
    seq: int
    from_seq: int | None = None
    user_id: str | None = None
    thread_id: str | None = None
    run_id: str | None = None
    agent_name: str | None = None
    parent_run_id: str | None = None
    timestamp: int = 0
    v: int = 1
    data: dict[str, Any] = {}

    @property
    def position(self) -> Position:
        """The place just after this event."""
        return Position(self.epoch, self.seq)

    @property
    def epoch(self) -> str:
        """The term of the log that ``seq`` belongs to."""
        return self.id.partition(":")[0]


_decoder = msgspec.json.Decoder(WebSocketEvent)


def decode_event(raw: bytes | str | Mapping[str, Any]) -> WebSocketEvent:
    """
    Read one event message of the wire.

    Raises:
        ProtocolError: If it is not an event; the code is ``bad_message``.
    """
    try:
        if isinstance(raw, Mapping):
            return msgspec.convert(raw, WebSocketEvent)
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError("bad_message", f"not an event: {error}") from error

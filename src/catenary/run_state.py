"""
The state of a run, as folding its events makes it.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from catenary.errors import RecordCorrupt

TOOLS_KEPT = 100
"""How many ended tool calls a state lists, so that a run of days stays bounded."""


class RunStatus(enum.StrEnum):
    """How far a run is. All but ``running`` are ends."""

    RUNNING = "running"
    COMPLETED = "completed"
    SUSPENDED = "suspended"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ToolStatus(enum.StrEnum):
    """How far a tool call is."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class MessageState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of one message, as far as it was said."""

    message_id: str
    part: str = "text"
    tool_call_id: str | None = None
    text: str = ""


class ToolState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tool call. ``duration_ms`` is in milliseconds."""

    tool_call_id: str
    tool_name: str
    tool_input: Any = None
    status: ToolStatus = ToolStatus.OPEN
    tool_output: Any = None
    error: Any = None
    duration_ms: float | None = None


class QuestionState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One question to the user, as ``input_requested`` asked it.

    ``expires_at`` is in milliseconds since 1970; ``by`` says who answered, and
    is None while nobody has.
    """

    request_id: str
    kind: str = "question"
    question: str | None = None
    schema: Any = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    tool_input: Any = None
    expires_at: int | None = None
    suspends: bool = False
    answer: Any = None
    by: str | None = None


class RunFailure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a run failed, as ``agent_error`` says it."""

    code: str
    message: str
    retryable: bool = False


class RunState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A run as its events through ``last_seq`` tell it.

    Attributes:
        run_id: The run.
        status: How far it is.
        task: What ``agent_started`` says of the task.
        continues_run_id: The run that this one goes on with.
        messages: What was said, each part of each message once, as they began.
        tools: The tool calls as they began: the open ones and the last
            :data:`TOOLS_KEPT` that ended.
        tools_dropped: How many ended calls are no longer listed.
        questions: What the user was asked, as it was asked: what is open, and the
            last :data:`TOOLS_KEPT` that were answered.
        thinking: The data of the latest ``agent_thinking``.
        progress: The data of the latest ``progress_update``.
        result: What ``agent_completed`` carried.
        error: Why it failed, if it did.
        cancel_reason: Why it was cancelled, if it was.
        usage: What ``agent_completed`` says of usage.
        started_at: Milliseconds since 1970; None if that was not seen.
        ended_at: Milliseconds since 1970; None while it runs.
        first_seq: The number of the first event folded.
        last_seq: The number of the last event folded.
        children: The ids of the runs of its sub-agents, if their starts were folded too.
    """

    run_id: str
    user_id: str | None = None
    thread_id: str | None = None
    agent_name: str | None = None
    parent_run_id: str | None = None
    status: RunStatus = RunStatus.RUNNING
    task: Any = None
    continues_run_id: str | None = None
    messages: tuple[MessageState, ...] = ()
    tools: tuple[ToolState, ...] = ()
    tools_dropped: int = 0
    questions: tuple[QuestionState, ...] = ()
    thinking: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    result: Any = None
    error: RunFailure | None = None
    cancel_reason: str | None = None
    usage: Any = None
    started_at: int | None = None
    ended_at: int | None = None
    first_seq: int = 0
    last_seq: int = 0
    children: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text that was said: of all messages, one after the other."""
        return self._said("text")

    @property
    def reasoning(self) -> str:
        """The reasoning that was said: of all messages, one after the other."""
        return self._said("reasoning")

    @property
    def pending(self) -> tuple[QuestionState, ...]:
        """The questions that wait for an answer: of a run that is open, or that they suspended."""
        waits = self.status in {RunStatus.RUNNING, RunStatus.SUSPENDED}
        return tuple(asked for asked in self.questions if waits and asked.by is None)

    @property
    def is_open(self) -> bool:
        """Whether no end was folded yet."""
        return self.status is RunStatus.RUNNING

    def _said(self, part: str) -> str:
        return "".join(message.text for message in self.messages if message.part == part)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(RunState)


def encode_state(state: RunState) -> bytes:
    """Return a state as JSON, for :func:`decode_state`."""
    return _encoder.encode(state)


def decode_state(stored: bytes) -> RunState:
    """
    Read what :func:`encode_state` wrote.

    Raises:
        RecordCorrupt: If it cannot be read.
    """
    try:
        return _decoder.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordCorrupt(f"a run's folded state cannot be read: {error}") from error

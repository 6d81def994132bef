"""Events that producers in any language publish: from JSON to entries of a log."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from catenary.context import check_id
from catenary.encoding import encode, to_builtins
from catenary.envelope import Envelope
from catenary.errors import EventTooLarge, RunClosed, UsageError
from catenary.eventlog.entry import Entry
from catenary.eventlog.stream import HeldRun, Stream
from catenary.events import (
    AgentCancelled,
    AgentCompleted,
    AgentDelta,
    AgentError,
    AgentStarted,
    AgentThinking,
    EventType,
    Payload,
    ProgressUpdate,
    ToolCompleted,
    ToolExecuting,
    UserMessage,
)
from catenary.grammar import OpenTool, Step
from catenary.redaction import redact
from catenary.serving.admission import Refusal
from catenary.voice import Redactor, Voice, check_custom_type, with_key

LEASE_SECONDS = 300.0
LEASE_MAX_SECONDS = 24 * 3600.0


class Published(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One event as a producer publishes it."""

    type: str
    data: dict[str, Any] = {}
    thread_id: str | None = None
    run_id: str | None = None
    agent_name: str | None = None
    parent_run_id: str | None = None
    key: str | None = None
    """Neighbours of one run with the same key may be shown by the latest."""
    v: int | None = None
    """The version of an application's own type."""


class _Kind(NamedTuple):
    payload: type[Payload]
    step: Step
    free: tuple[str, ...] = ()
    """The fields that hold whatever the agent passed, where secrets may be."""


_KINDS = {
    EventType.AGENT_STARTED: _Kind(AgentStarted, Step.START, ("task",)),
    EventType.AGENT_THINKING: _Kind(AgentThinking, Step.WITHIN),
    EventType.AGENT_DELTA: _Kind(AgentDelta, Step.WITHIN),
    EventType.TOOL_EXECUTING: _Kind(ToolExecuting, Step.TOOL_START, ("tool_input",)),
    EventType.TOOL_COMPLETED: _Kind(ToolCompleted, Step.TOOL_END, ("tool_output", "error")),
    EventType.AGENT_COMPLETED: _Kind(AgentCompleted, Step.COMPLETE, ("result",)),
    EventType.AGENT_ERROR: _Kind(AgentError, Step.FAIL, ("message",)),
    EventType.AGENT_CANCELLED: _Kind(AgentCancelled, Step.CANCEL),
    EventType.USER_MESSAGE: _Kind(UserMessage, Step.ASIDE),
    EventType.PROGRESS_UPDATE: _Kind(ProgressUpdate, Step.ASIDE),
}
_PARTS = frozenset({"text", "reasoning", "tool_input"})


class Prepared(NamedTuple):
    """Entries to append in one step, and which of them were asked for."""

    entries: list[Entry]
    asked: list[int]


class Publication:
    """
    The events of one request for one log, all or none.

    Events that name a run keep its grammar and take its names where they give
    none; the others stand outside it. Not reused.
    """

    def __init__(
        self,
        user_id: str,
        events: Sequence[Published],
        *,
        is_list: bool,
        idempotency_key: str | None,
        redactor: Redactor | None,
        limit_bytes: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._user_id = user_id
        self._events = events
        self._is_list = is_list
        self._key = idempotency_key
        self._redactor = redactor
        self._limit_bytes = limit_bytes
        self._now_ms = now_ms
        self._voices: dict[tuple[str | None, ...], Voice] = {}
        self._starts: dict[str, Published] = {}
        self._tools: dict[str, dict[str, OpenTool]] = {}
        self._elsewhere: Collection[str] = ()

    @property
    def run_ids(self) -> list[str]:
        """The runs that the events name, each once."""
        return list(dict.fromkeys(event.run_id for event in self._events if event.run_id))

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of the events."""
        keys = map(self._key_of, range(len(self._events)))
        return [key for key in keys if key is not None]

    def prepare(self, stream: Stream, elsewhere: Collection[str] = ()) -> Prepared:
        """
        Make the entries. The log's lock is held, so that no run changes meanwhile.

        ``elsewhere`` names the runs that other processes hold for themselves.

        Raises:
            Refusal: 400, 409 or 413, naming the event of a list that is wrong.
        """
        entries: list[Entry] = []
        asked: list[int] = []
        self._elsewhere = elsewhere
        for index, event in enumerate(self._events):
            try:
                entries += self._entries(stream, event, self._key_of(index))
            except EventTooLarge as error:
                raise Refusal(413, "too_large", self._at(index, error)) from None
            except (UsageError, msgspec.ValidationError) as error:
                raise Refusal(400, "bad_event", self._at(index, error)) from None
            except RunClosed as error:
                raise Refusal(409, "run_closed", self._at(index, error)) from None
            if self._key is not None:
                # What we add, such as durations, differs from one attempt to the next.
                entries[-1].digest = _digest(event)
            asked.append(len(entries) - 1)
        return Prepared(entries, asked)

    def _key_of(self, index: int) -> str | None:
        if self._key is None:
            return None
        return f"http:{self._key}:{index}" if self._is_list else f"http:{self._key}"

    def _at(self, index: int, error: Exception) -> str:
        return f"event {index}: {error}" if self._is_list else str(error)

    # One event

    def _entries(self, stream: Stream, event: Published, key: str | None) -> list[Entry]:
        run = self._run(stream, event)
        voice = self._voice(event, run)
        if event.type not in _KINDS:
            return [self._custom(voice, event, key)]
        if event.v is not None:
            raise UsageError(f"v is for an application's own types, not for {event.type!r}")
        kind = _KINDS[EventType(event.type)]
        payload = self._payload(kind, event, run)
        if isinstance(payload, AgentDelta):
            return [self._delta(voice, event, payload, key)]
        if isinstance(payload, AgentError | AgentCancelled):
            return self._ending(voice, event, payload, key)
        self._follow(event, payload)
        if isinstance(payload, ProgressUpdate):
            merge = _merge(event, event.key or "progress")
            return [voice.event(event.type, payload, merge=merge, key=key)]
        return [self._event(voice, event, payload, key)]

    def _custom(self, voice: Voice, event: Published, key: str | None) -> Entry:
        if event.type in EventType.__members__.values():
            raise UsageError(f"{event.type!r} is written by the bridge alone")
        type_ = check_custom_type(event.type)
        merge = _merge(event, event.key) if event.key is not None else None
        return voice.event(type_, event.data, merge=merge, key=key, version=event.v)

    def _delta(self, voice: Voice, event: Published, payload: AgentDelta, key: str | None) -> Entry:
        if payload.part not in _PARTS:
            raise UsageError(f"part is one of {', '.join(sorted(_PARTS))}: {payload.part!r:.40}")
        message_id = event.data.get("message_id")
        return voice.delta(payload.delta, message_id, payload.part, payload.tool_call_id, key)

    def _event(self, voice: Voice, event: Published, payload: Payload, key: str | None) -> Entry:
        call = payload.tool_call_id if isinstance(payload, ToolExecuting | ToolCompleted) else ""
        return voice.event(
            event.type,
            payload,
            step=_KINDS[EventType(event.type)].step if event.run_id is not None else Step.ASIDE,
            tool_call_id=call,
            tool_name=payload.tool_name if isinstance(payload, ToolExecuting) else "",
            key=key,
        )

    def _payload(self, kind: _Kind, event: Published, run: HeldRun | None) -> Payload:
        fields = {field.name for field in msgspec.structs.fields(kind.payload)}
        unknown = sorted(set(event.data) - fields)
        if unknown:
            raise UsageError(f"{event.type} has no {', '.join(unknown)!s:.80} in its data")
        data = {name: value for name, value in event.data.items() if value is not None}
        if self._redactor is None:
            data |= {name: redact(to_builtins(data[name])) for name in kind.free if name in data}
        if kind.step is Step.START and event.run_id is not None:
            data["lease"] = _lease(data.get("lease", LEASE_SECONDS))
        elif kind.payload is AgentDelta:
            data.setdefault("message_id", "")
        self._add_duration(kind, event, run, data)
        return msgspec.convert(data, kind.payload)

    def _add_duration(
        self, kind: _Kind, event: Published, run: HeldRun | None, data: dict[str, Any]
    ) -> None:
        began = None
        if kind.step is Step.TOOL_END:
            tool = self._tools.get(event.run_id or "", {}).get(str(data.get("tool_call_id")))
            began = tool.began_at if tool is not None else None
        elif kind.step is Step.COMPLETE and run is not None:
            began = run.started_at or None
        if began is not None:
            data.setdefault("duration_ms", max(0, self._now_ms() - began))

    # Runs

    def _run(self, stream: Stream, event: Published) -> HeldRun | None:
        """Return the run that an event belongs to, if this node knows it."""
        run_id = event.run_id
        if run_id is None:
            return None
        check_id("run_id", run_id)
        run = stream.runs.get(run_id)
        self._tools.setdefault(run_id, dict(run.grammar.open_tools) if run is not None else {})
        if event.type == EventType.AGENT_STARTED:
            self._starts.setdefault(run_id, event)
        is_aside = event.type not in _KINDS or event.type == EventType.PROGRESS_UPDATE
        is_process_s = run_id in self._elsewhere or (
            run is not None and run.is_open and run.first_seq and run.lease is None
        )
        if is_process_s and not is_aside:
            raise RunClosed(run_id, "it belongs to a process that runs it")
        return run

    def _voice(self, event: Published, run: HeldRun | None) -> Voice:
        known = run or self._starts.get(event.run_id or "") or event
        thread_id = event.thread_id or known.thread_id
        if known.thread_id is not None and thread_id != known.thread_id:
            raise UsageError(f"run {event.run_id!r} belongs to thread {known.thread_id!r}")
        names = (
            thread_id,
            event.run_id,
            event.agent_name or known.agent_name,
            event.parent_run_id or known.parent_run_id,
        )
        voice = self._voices.get(names)
        if voice is None:
            for name, value in zip(_NAMES, names, strict=True):
                if value is not None:
                    check_id(name, value)
            envelope = Envelope(user_id=self._user_id, **dict(zip(_NAMES, names, strict=True)))
            voice = Voice(
                envelope,
                redactor=self._redactor,
                limit_bytes=self._limit_bytes,
                now_ms=self._now_ms,
            )
            self._voices[names] = voice
        return voice

    def _follow(self, event: Published, payload: Payload) -> None:
        """Know which tools are open after this event, for an end later in the list."""
        tools = self._tools.get(event.run_id or "")
        if tools is None:
            return
        if isinstance(payload, ToolExecuting):
            tools[payload.tool_call_id] = OpenTool(payload.tool_name, self._now_ms())
        elif isinstance(payload, ToolCompleted):
            tools.pop(payload.tool_call_id, None)

    def _ending(
        self, voice: Voice, event: Published, end: AgentError | AgentCancelled, key: str | None
    ) -> list[Entry]:
        """Return the end of a run, after what closes its open tools, redacted as it is."""
        tools = self._tools.pop(event.run_id or "", {})
        *closings, last = voice.ending(end)(tools)
        if key is not None:
            for closing in closings:
                closing.key = f"{key}:{closing.tool_call_id}"
                closing.digest = b"closing"
        return [*closings, with_key(last, key, end)]


_NAMES = ("thread_id", "run_id", "agent_name", "parent_run_id")


def _merge(event: Published, key: str) -> str:
    return f"key\0{event.run_id}\0{event.type}\0{key}"


def _digest(event: Published) -> bytes:
    return hashlib.blake2b(encode(event), digest_size=16).digest()


def _lease(seconds: Any) -> float:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 1 <= seconds <= LEASE_MAX_SECONDS:
        raise UsageError(f"lease is a number of seconds from 1 to {LEASE_MAX_SECONDS:.0f}")
    return float(seconds)

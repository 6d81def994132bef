"""
Folding: the events of a run, one after the other, become its state.

Folding is deterministic: however the events are split, saved in between,
given twice or merged, the state is the same. Pure: no I/O, no clock.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from catenary.errors import UsageError
from catenary.run_state import (
    TOOLS_KEPT,
    MessageState,
    QuestionState,
    RunFailure,
    RunState,
    RunStatus,
    ToolState,
    ToolStatus,
    decode_state,
    encode_state,
)

__all__ = [
    "TOOLS_KEPT",
    "FoldedEvent",
    "MessageState",
    "QuestionState",
    "RunFailure",
    "RunFold",
    "RunState",
    "RunStatus",
    "ToolState",
    "ToolStatus",
    "decode_state",
    "encode_state",
]  # fmt: skip


class FoldedEvent(Protocol):
    """What folding needs of an event; :class:`~catenary.events.WebSocketEvent` has it."""

    @property
    def type(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def from_seq(self) -> int | None: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def thread_id(self) -> str | None: ...
    @property
    def run_id(self) -> str | None: ...
    @property
    def agent_name(self) -> str | None: ...
    @property
    def parent_run_id(self) -> str | None: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


_replace = msgspec.structs.replace
_Place = tuple[str, str, str | None]


class RunFold:
    """
    A run's state that grows by its events.

    Begin with nothing, or with a saved state. Give the events in the order of
    the log; those through ``last_seq`` are ignored, so giving them twice is
    harmless. The first event decides whose run it is.
    """

    __slots__ = ("_known", "_questions", "_texts", "_tools", "last_seq")

    def __init__(self, state: RunState | None = None) -> None:
        self.last_seq = 0
        """The number of the last event folded; 0 before the first."""
        self._known: RunState | None = None
        self._tools: list[ToolState] = []
        self._questions: dict[str, QuestionState] = {}
        self._texts: dict[_Place, io.StringIO] = {}
        if state is not None:
            self._restore(state)

    def _restore(self, state: RunState) -> None:
        self.last_seq = state.last_seq
        self._known = _replace(state, messages=(), tools=(), questions=())
        self._tools = list(state.tools)
        self._questions = {asked.request_id: asked for asked in state.questions}
        for message in state.messages:
            place = (message.message_id, message.part, message.tool_call_id)
            self._texts.setdefault(place, io.StringIO()).write(message.text)

    @property
    def is_begun(self) -> bool:
        """Whether anything was folded."""
        return self._known is not None

    @property
    def state(self) -> RunState:
        """
        The state now. It does not change when more is folded.

        Raises:
            UsageError: If nothing was folded yet.
        """
        if self._known is None:
            raise UsageError("nothing was folded yet: apply the first event of the run")
        return _replace(
            self._known,
            messages=tuple(
                MessageState(
                    message_id=message_id, part=part, tool_call_id=call, text=said.getvalue()
                )
                for (message_id, part, call), said in self._texts.items()
            ),
            tools=tuple(self._tools),
            questions=tuple(self._questions.values()),
            last_seq=self.last_seq,
        )

    def apply(self, event: FoldedEvent) -> None:
        """
        Take the next event of the run; of the runs of its sub-agents, their starts.

        Raises:
            UsageError: If the event belongs to another run, or is a merged
                delta of which a part was folded before. The state is as it was.
        """
        known = self._known or self._begun(event)
        if event.run_id != known.run_id:
            self._known = self._with_child(known, event)
            return
        if event.seq <= self.last_seq:
            return
        if event.type == "agent_delta":
            self._say(event)
            self._known = known
        else:
            rule = _RULES.get(event.type)
            self._known = known if rule is None else rule(self, known, event)
        self.last_seq = event.seq

    def _begun(self, event: FoldedEvent) -> RunState:
        if event.run_id is None:
            raise UsageError(f"{event.type!r} at {event.seq} belongs to no run")
        return RunState(
            run_id=event.run_id,
            user_id=event.user_id,
            thread_id=event.thread_id,
            agent_name=event.agent_name,
            parent_run_id=event.parent_run_id,
            first_seq=event.from_seq or event.seq,
        )

    def _with_child(self, known: RunState, event: FoldedEvent) -> RunState:
        if event.run_id is None or event.parent_run_id != known.run_id:
            raise UsageError(f"an event of {event.run_id!r} in the fold of {known.run_id!r}")
        if event.type == "agent_started" and event.run_id not in known.children:
            return _replace(known, children=(*known.children, event.run_id))
        return known

    def _say(self, event: FoldedEvent) -> None:
        if event.from_seq is not None and event.from_seq <= self.last_seq:
            raise UsageError(
                f"a part of the merged delta {event.from_seq}-{event.seq} of run "
                f"{event.run_id!r} was folded before: all through {self.last_seq}"
            )
        call = event.data.get("tool_call_id")
        place = (
            _text(event.data.get("message_id")),
            _text(event.data.get("part"), "text"),
            call if isinstance(call, str) else None,
        )
        self._texts.setdefault(place, io.StringIO()).write(_text(event.data.get("delta")))

    def _started(self, known: RunState, event: FoldedEvent) -> RunState:
        continues = event.data.get("continues_run_id")
        return _replace(
            known,
            started_at=event.timestamp,
            agent_name=event.agent_name,
            task=event.data.get("task"),
            continues_run_id=continues if isinstance(continues, str) else None,
        )

    def _tool_began(self, known: RunState, event: FoldedEvent) -> RunState:
        self._tools.append(
            ToolState(
                tool_call_id=_text(event.data.get("tool_call_id")),
                tool_name=_text(event.data.get("tool_name")),
                tool_input=event.data.get("tool_input"),
            )
        )
        return known

    def _tool_ended(self, known: RunState, event: FoldedEvent) -> RunState:
        call = _text(event.data.get("tool_call_id"))
        index = self._index_of_open(call)
        began = self._tools[index] if index is not None else None
        ended = ToolState(
            tool_call_id=call,
            tool_name=_text(event.data.get("tool_name"), began.tool_name if began else ""),
            tool_input=began.tool_input if began else None,
            status=ToolStatus.SUCCEEDED if event.data.get("success") else ToolStatus.FAILED,
            tool_output=event.data.get("tool_output"),
            error=event.data.get("error"),
            duration_ms=_number(event.data.get("duration_ms")),
        )
        if index is None:
            self._tools.append(ended)
        else:
            self._tools[index] = ended
        return _replace(known, tools_dropped=known.tools_dropped + self._drop())

    def _index_of_open(self, call: str) -> int | None:
        for index, tool in enumerate(self._tools):
            if tool.tool_call_id == call and tool.status is ToolStatus.OPEN:
                return index
        return None

    def _drop(self) -> int:
        """Drop the oldest ended call if there are too many; return how many went."""
        ended = [at for at, tool in enumerate(self._tools) if tool.status is not ToolStatus.OPEN]
        if len(ended) <= TOOLS_KEPT:
            return 0
        del self._tools[ended[0]]
        return 1

    def _asked(self, known: RunState, event: FoldedEvent) -> RunState:
        request_id = _text(event.data.get("request_id"))
        wanted: dict[str, Any] = {
            name: event.data.get(name) for name in _ASKED if name in event.data
        }
        self._questions[request_id] = QuestionState(**{**wanted, "request_id": request_id})
        return known

    def _answered(self, known: RunState, event: FoldedEvent) -> RunState:
        request_id = _text(event.data.get("request_id"))
        asked = self._questions.get(request_id)
        if asked is not None and asked.by is None:
            by = _text(event.data.get("by"))
            answered = _replace(asked, answer=event.data.get("answer"), by=by)
            self._questions[request_id] = answered
            over = [one.request_id for one in self._questions.values() if one.by is not None]
            for oldest in over[:-TOOLS_KEPT]:
                del self._questions[oldest]
        return known

    def _completed(self, known: RunState, event: FoldedEvent) -> RunState:
        outcome = event.data.get("outcome")
        return _replace(
            known,
            status=RunStatus.SUSPENDED if outcome == "suspended" else RunStatus.COMPLETED,
            result=event.data.get("result"),
            usage=event.data.get("usage"),
            ended_at=event.timestamp,
        )

    def _failed(self, known: RunState, event: FoldedEvent) -> RunState:
        failure = RunFailure(
            code=_text(event.data.get("code")),
            message=_text(event.data.get("message")),
            retryable=bool(event.data.get("retryable")),
        )
        return _replace(known, status=RunStatus.FAILED, error=failure, ended_at=event.timestamp)

    def _cancelled(self, known: RunState, event: FoldedEvent) -> RunState:
        reason = event.data.get("reason")
        return _replace(
            known,
            status=RunStatus.CANCELLED,
            cancel_reason=reason if isinstance(reason, str) else None,
            ended_at=event.timestamp,
        )


_RULES: dict[str, Callable[[RunFold, RunState, FoldedEvent], RunState]] = {
    "agent_started": RunFold._started,
    "agent_thinking": lambda _, known, event: _replace(known, thinking=dict(event.data)),
    "progress_update": lambda _, known, event: _replace(known, progress=dict(event.data)),
    "tool_executing": RunFold._tool_began,
    "tool_completed": RunFold._tool_ended,
    "input_requested": RunFold._asked,
    "input_resolved": RunFold._answered,
    "agent_completed": RunFold._completed,
    "agent_error": RunFold._failed,
    "agent_cancelled": RunFold._cancelled,
}


_ASKED = frozenset(QuestionState.__struct_fields__) - {"answer", "by"}


def _text(value: object, otherwise: str = "") -> str:
    # Producers in other languages may publish data of any shape.
    return value if isinstance(value, str) else otherwise


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

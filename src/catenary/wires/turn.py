"""
Turns: which events of a thread answer one message of its user.

The clients of other protocols ask and get an answer; a thread of the log has
the answers of many agents. A turn begins with the user's message, takes the
run that answers it, what continues that run, and its sub-runs. Pure: no I/O,
no clock.
"""

from __future__ import annotations

import enum
from typing import Any

from catenary.events import EventType, WebSocketEvent
from catenary.position import Position


class Part(enum.Enum):
    """What an event is to a turn."""

    START = enum.auto()
    """The run that answers begins, or one that continues it."""
    OWN = enum.auto()
    CHILD = enum.auto()
    """Of a run of a sub-agent."""
    ANSWER = enum.auto()
    """The user answered what the turn asked."""
    END = enum.auto()
    """The run has ended, or asks and waits: the client has to do something, or nothing."""


class Ending(enum.StrEnum):
    """Why a turn says no more for now."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WAITING = "waiting"
    """For an answer of the user."""


_ENDINGS: dict[str, Ending] = {
    EventType.AGENT_COMPLETED: Ending.COMPLETED,
    EventType.AGENT_ERROR: Ending.FAILED,
    EventType.AGENT_CANCELLED: Ending.CANCELLED,
}


class Turn:
    """
    One turn, as the events of its thread tell it. Give them in order.

    Args:
        message_id: Of the ``user_message`` that the turn answers.
        run_id: The run that answers, where that is known and the message not.

    Attributes:
        message_id: The id of the answer for its client: that of the first run.
        run_id: The run at work, or the last one.
        ending: Why it says no more for now; None while it goes on.
        pending: The questions that wait for the user, by ``request_id``.
        asked_at: For each question the place where the turn stopped for it.
        ended_at: When it said its last, in milliseconds since 1970.
        stopped_at: The number of the event that stopped it.
        end: The data of the run's end.
    """

    def __init__(self, *, message_id: str | None = None, run_id: str | None = None) -> None:
        self._asked_by = message_id
        self._is_asked = message_id is None
        self.message_id: str | None = None
        self.run_id = run_id
        self.ending: Ending | None = None
        self.pending: dict[str, dict[str, Any]] = {}
        self.asked_at: dict[str, Position] = {}
        self.ended_at = 0
        self.stopped_at = 0
        self.end: dict[str, Any] = {}
        self._is_suspended = False
        self._children: dict[str, str] = {}

    @property
    def is_started(self) -> bool:
        """Whether the run that answers has begun."""
        return self.message_id is not None

    @property
    def is_stopped(self) -> bool:
        """Whether it says no more unless its user does something."""
        return self.ending is not None

    @property
    def next_stop(self) -> int:
        """From which event on a replay of what is in the log so far stops."""
        return self.stopped_at if self.is_stopped else self.stopped_at + 1

    def take(self, event: WebSocketEvent) -> Part | None:
        """Take the next event of the thread; None if it is not this turn's."""
        if event.type == EventType.AGENT_STARTED:
            return self._started(event)
        if not self.is_started:
            is_ours = event.type == EventType.USER_MESSAGE
            if is_ours and event.data.get("message_id") == self._asked_by:
                self._is_asked = True
            return None
        if event.type == EventType.INPUT_RESOLVED:
            return self._answered(event)
        if event.run_id == self.run_id and not self._is_over:
            return self._own(event)
        if event.run_id not in self._children:
            return None
        # A sub-agent that waits for the user holds up the turn as well.
        asks = event.type == EventType.INPUT_REQUESTED and not self._is_over
        return self._own(event) if asks else Part.CHILD

    @property
    def _is_over(self) -> bool:
        return self.ending is not None and self.ending is not Ending.WAITING

    def parent_of(self, run_id: str | None) -> str | None:
        """Return the parent of a sub-run; None for a run of the turn's own."""
        parent = self._children.get(run_id or "")
        return parent if parent in self._children else None

    def _started(self, event: WebSocketEvent) -> Part | None:
        run_id, parent = event.run_id or "", event.parent_run_id
        if parent is not None:
            if not self.is_started or (parent != self.run_id and parent not in self._children):
                return None
            self._children[run_id] = parent
            return Part.CHILD
        if not (self._is_continuation(event) if self.is_started else self._is_answer(event)):
            return None
        self.message_id = self.message_id or run_id
        self.run_id = run_id
        self.ending, self._is_suspended = None, False
        return Part.START

    def _is_answer(self, event: WebSocketEvent) -> bool:
        if not self._is_asked:
            return False
        if self._asked_by is None:
            return event.run_id == self.run_id
        # An agent that was started elsewhere does not know what it answers.
        return event.data.get("in_reply_to") in {None, self._asked_by}

    def _is_continuation(self, event: WebSocketEvent) -> bool:
        return event.data.get("continues_run_id") == self.run_id

    def _own(self, event: WebSocketEvent) -> Part:
        ending = _ENDINGS.get(event.type)
        if event.type == EventType.INPUT_REQUESTED:
            request_id = str(event.data.get("request_id"))
            self.pending[request_id] = event.data
            ending = None if event.data.get("suspends") else Ending.WAITING
        elif ending is Ending.COMPLETED and event.data.get("outcome") == "suspended":
            self._is_suspended, ending = True, Ending.WAITING
        elif ending is not None:
            self.pending.clear()
            self.end = event.data
        if ending is None:
            return Part.OWN
        self.ending, self.ended_at, self.stopped_at = ending, event.timestamp, event.seq
        for request_id in self.pending:
            self.asked_at.setdefault(request_id, event.position)
        return Part.END

    def _answered(self, event: WebSocketEvent) -> Part | None:
        if self.pending.pop(str(event.data.get("request_id")), None) is None:
            return None
        if not self.pending and self.ending is Ending.WAITING:
            # A run that waited goes on; one that was suspended is followed by another,
            # unless nobody answered it.
            is_left = self._is_suspended and event.data.get("by") in {"expiry", "withdrawn"}
            self.ending = Ending.COMPLETED if is_left else None
        return Part.ANSWER

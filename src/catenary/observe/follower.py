"""
Whether what was written to one connection is what the wire promises.

Pure: fed with frames in their order, it says what does not hold. It keeps a
place and no events, so it may follow a connection for ever.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from catenary.errors import UsageError
from catenary.position import Position
from catenary.wires.native import payload_of


class Fault(enum.StrEnum):
    """What can be wrong with what a connection was given."""

    HOLE = "hole"
    """Events were skipped, and no gap said so."""
    DOUBLE = "double"
    """An event came twice."""
    SWAP = "swap"
    """An event came after a later one."""
    FOREIGN = "foreign"
    """An event of another user came, or of a thread that was not asked for."""
    POSITION = "position"
    """A ``live`` or ``heartbeat`` named a place that is not the connection's."""
    UNREADABLE = "unreadable"
    """A frame is not a message of the wire."""


class Finding(NamedTuple):
    """One thing that does not hold."""

    fault: Fault
    text: str


class Written(msgspec.Struct):
    """What of a message says where it belongs; the rest is not decoded."""

    type: str
    seq: int | None = None
    from_seq: int | None = None
    id: str | int | None = None
    user_id: str | None = None
    thread_id: str | None = None
    timestamp: int | None = None
    position: str | None = None
    resumes_at: str | None = None


_decode = msgspec.json.Decoder(Written).decode


class Follower:
    """
    Follows one connection from a place on.

    ``user_id`` is whose events alone may come; None where a log is shared. On
    a filtered connection, one with ``thread_ids``, numbers only rise.
    """

    def __init__(
        self, place: Position, *, user_id: str | None, thread_ids: Collection[str] | None
    ) -> None:
        self.place = place
        """All that is for this reader through here was written."""
        self._user_id = user_id
        self._thread_ids = thread_ids
        self._skipped = range(0)
        """The numbers of the last hole: one that comes later is a swap."""

    def follow(self, frame: bytes) -> tuple[Written | None, Finding | None]:
        """Take the next frame; return the message if it is an event, and what does not hold."""
        try:
            message = _decode(payload_of(frame))
            if message.seq is not None:
                return message, self._event(message, message.seq)
            return None, self._control(message)
        except (msgspec.DecodeError, UnicodeDecodeError, UsageError) as error:
            return None, Finding(Fault.UNREADABLE, f"after {self.place}: {error}")

    def _event(self, message: Written, seq: int) -> Finding | None:
        # Position.parse would take as long as all the rest.
        end = Position(str(message.id).partition(":")[0], seq)
        if message.id != str(end):
            return Finding(Fault.UNREADABLE, f"the event {seq} has the id {message.id}")
        first = seq if message.from_seq is None else message.from_seq
        foreign = self._foreign(message, end)
        if foreign is None:
            return self._move(first, end)
        if Position(end.epoch, first - 1) == self.place:
            # It stands where one of ours should.
            self.place = end
        return foreign

    def _foreign(self, message: Written, end: Position) -> Finding | None:
        if self._user_id is not None and message.user_id not in (None, self._user_id):
            return Finding(Fault.FOREIGN, f"{end} is of user {message.user_id}")
        if self._thread_ids is not None and message.thread_id not in self._thread_ids:
            return Finding(Fault.FOREIGN, f"{end} is of thread {message.thread_id}")
        return None

    def _move(self, first: int, end: Position) -> Finding | None:
        place = self.place
        if end.epoch != place.epoch:
            self.place = end
            return Finding(Fault.HOLE, f"from {place} to {end}, and no gap between")
        if first <= place.seq:
            fault = Fault.SWAP if first in self._skipped else Fault.DOUBLE
            return Finding(fault, f"{first} to {end} came after {place}")
        self.place = end
        if first > place.seq + 1 and self._thread_ids is None:
            self._skipped = range(place.seq + 1, first)
            return Finding(Fault.HOLE, f"from {place} to {first}, and no gap between")
        return None

    def _control(self, message: Written) -> Finding | None:
        if message.type == "gap" and message.resumes_at is not None:
            epoch, seq = Position.parse(message.resumes_at)
            self.place = Position(epoch, seq - 1)
        elif message.type in {"live", "heartbeat"} and message.position is not None:
            return self._told(message.type, Position.parse(message.position))
        return None

    def _told(self, type: str, told: Position) -> Finding | None:
        place = self.place
        is_ahead = told.epoch == place.epoch and told.seq > place.seq
        if told == place or (is_ahead and self._thread_ids is not None):
            # On a filtered connection others' events lie between.
            self.place = told
            return None
        return Finding(Fault.POSITION, f"{type} says {told} at {place}")

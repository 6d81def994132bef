"""
What a client received and its application has not handled yet.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections import deque

from catenary.client.errors import Gap
from catenary.client.messages import GapNotice, read_position
from catenary.errors import ProtocolError, UsageError
from catenary.events import WebSocketEvent
from catenary.position import Position


class _Item:
    """An event or a gap, and where the client is once it is handled."""

    __slots__ = ("content", "place", "size_bytes")

    def __init__(self, content: WebSocketEvent | Gap, place: Position, size_bytes: int) -> None:
        self.content = content
        self.place = place
        self.size_bytes = size_bytes


class Inbox:
    """
    The short stretch between the socket and the application.

    ``reach`` is the place through which everything is here or was handed over;
    ``position`` the one through which everything was handled. Both are None
    until the first place is known. The reader keeps it short by not reading on
    while :attr:`waiting_frames` or :attr:`waiting_bytes` are high.
    """

    def __init__(self, place: Position | None, *, is_filtered: bool) -> None:
        self.duplicates = 0
        self.gaps = 0
        self._is_filtered = is_filtered
        self.reach = place
        self.position = place
        self.waiting_bytes = 0
        self._waiting: deque[_Item] = deque()
        self._given: deque[_Item] = deque()

    @property
    def waiting_frames(self) -> int:
        """How many events and gaps wait to be taken."""
        return len(self._waiting)

    @property
    def is_settled(self) -> bool:
        """Whether everything that was taken is handled."""
        return not self._given

    def begin(self, place: Position) -> None:
        """Set the first place, unless one is known."""
        if self.reach is None:
            self.reach = self.position = place

    def receive_event(self, event: WebSocketEvent, size_bytes: int) -> None:
        """
        Append an event, or drop it if it was here before.

        Raises:
            ProtocolError: If something is missing before it.
        """
        place, reach = read_position(event.id), self._known_reach
        if place.seq != event.seq or place.epoch != reach.epoch:
            raise ProtocolError("bad_message", f"event {event.id} after {reach} without a gap")
        if event.seq <= reach.seq:
            self.duplicates += 1
            return
        first = event.seq if event.from_seq is None else event.from_seq
        if first <= reach.seq or (first > reach.seq + 1 and not self._is_filtered):
            raise ProtocolError("bad_message", f"event {first} to {event.seq} came after {reach}")
        self._add(event, place, size_bytes)

    def receive_gap(self, notice: GapNotice, size_bytes: int) -> None:
        """
        Append a gap.

        Raises:
            ProtocolError: If its positions are none.
        """
        resumes_at = read_position(notice.resumes_at)
        gap = Gap(read_position(notice.after), resumes_at, notice.reason)
        self.gaps += 1
        self._add(gap, Position(resumes_at.epoch, max(0, resumes_at.seq - 1)), size_bytes)

    def receive_place(self, place: Position) -> None:
        """
        Move on without an event. It counts once everything before it is handled.

        Raises:
            ProtocolError: If events are missing up to there.
        """
        reach = self._known_reach
        if place.epoch != reach.epoch or (place.seq > reach.seq and not self._is_filtered):
            raise ProtocolError("bad_message", f"the server stands at {place}, this at {reach}")
        if place.seq > reach.seq:
            self._move(place)

    def take(self) -> WebSocketEvent | Gap | None:
        """Hand over the oldest that waits, or None."""
        if not self._waiting:
            return None
        item = self._waiting.popleft()
        self.waiting_bytes -= item.size_bytes
        self._given.append(item)
        return item.content

    def handled(self, count: int = 1) -> None:
        """
        Record that the oldest ``count`` events handed over were handled.

        Raises:
            UsageError: If fewer were handed over, or a gap lies among them;
                nothing moves then.
        """
        items = [item for item, _ in zip(self._given, range(count), strict=False)]
        if len(items) < count:
            raise UsageError(f"{count} events handled, but only {len(items)} were handed over")
        if any(isinstance(item.content, Gap) for item in items):
            raise UsageError("a gap comes first: acknowledge it, once its loss is dealt with")
        for _ in items:
            self.position = self._given.popleft().place

    def acknowledge_gap(self) -> None:
        """
        Record that the application dealt with the gap that it was handed.

        Raises:
            UsageError: If the oldest that was handed over is no gap.
        """
        if not self._given or not isinstance(self._given[0].content, Gap):
            raise UsageError("there is no gap to acknowledge")
        self.position = self._given.popleft().place

    def settle(self) -> None:
        """Record that everything handed over was handled, gaps included."""
        while self._given:
            self.position = self._given.popleft().place

    @property
    def _known_reach(self) -> Position:
        if self.reach is None:
            raise ProtocolError("bad_message", "something came before connected")
        return self.reach

    def _add(self, content: WebSocketEvent | Gap, place: Position, size_bytes: int) -> None:
        self._waiting.append(_Item(content, place, size_bytes))
        self.waiting_bytes += size_bytes
        self.reach = place

    def _move(self, place: Position) -> None:
        self.reach = place
        before = self._waiting or self._given
        if before:
            before[-1].place = place
        else:
            self.position = place

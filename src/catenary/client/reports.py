"""
What the server was told about a client's position.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from catenary.position import Position


class Reports:
    """
    Tells the server what is handled: the latest only, at most once an interval.

    ``confirmed`` is what the server said it knows.
    """

    def __init__(self, interval: float) -> None:
        self.confirmed: Position | None = None
        self._interval = interval
        self._known: Position | None = None
        self._reported: Position | None = None
        self._awaited: Position | None = None
        self._next = float("-inf")

    @property
    def is_awaited(self) -> bool:
        """Whether the answer to :meth:`demand` is still to come."""
        return self._awaited is not None

    def begin(self, place: Position | None) -> None:
        """Start at a place that was not handled here, and so needs no report."""
        self._known = self._reported = place

    def demand(self, position: Position | None) -> None:
        """Have ``position`` reported without waiting, unless that is confirmed or under way."""
        if position is not None and position not in (self.confirmed, self._awaited):
            self._awaited = position
            self._known = self._reported = None
            self._next = float("-inf")

    def due_at(self, position: Position | None) -> float:
        """When ``position`` is to be reported, if nothing changes."""
        return float("inf") if position in (None, self._reported) else self._next

    def to_send(self, position: Position | None, now: float) -> Position | None:
        """What to report now, or None."""
        if now < self.due_at(position):
            return None
        self._reported = position
        self._next = now + self._interval
        return position

    def confirm(self, position: Position, latest: Position | None) -> None:
        """Take the server's answer; ``latest`` is the position of now."""
        self.confirmed = self._known = position
        awaited = self._awaited
        if (
            awaited is None
            or position == latest
            or (position.epoch == awaited.epoch and position.seq >= awaited.seq)
        ):
            self._awaited = None

    def disconnected(self) -> None:
        """Forget what was reported and not confirmed: it is told again."""
        self._reported = self._known
        if self.is_awaited:
            self._next = float("-inf")

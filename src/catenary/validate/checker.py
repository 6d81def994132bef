"""
The one checker of what readers were given: every event, once, in order.

Pure: it is told what producers were acknowledged and what readers received,
in the order in which they received it, and says what does not hold.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from catenary.events import EventType, WebSocketEvent
from catenary.position import Position

Markers = Callable[[WebSocketEvent], Iterable[str]]
"""What identifies the content of an event: a merged one has those of each that it stands for."""


class Fault(enum.StrEnum):
    """What can be wrong with what a reader was given."""

    HOLE = "hole"
    """Events were skipped, and nothing said so."""
    DOUBLE = "double"
    """An event came twice."""
    SWAP = "swap"
    """An event came after a later one."""
    FOREIGN = "foreign"
    """An event of another log came."""
    TOLD_LOSS = "told loss"
    """Events are lost, and a gap said so."""
    LOST = "lost"
    """An acknowledged event never came."""
    CHANGED = "changed"
    """What came is not what was acknowledged at that place, or what another reader got there."""
    REPEATED = "repeated"
    """One piece of content stands in the log twice."""
    BEHIND = "behind"
    """A reader did not come to the end of its log."""


class Problem(NamedTuple):
    """One thing that does not hold; ``place`` says where in the log, if at one place."""

    fault: Fault
    reader: str
    text: str
    place: Position | None = None

    def __str__(self) -> str:
        return f"{self.fault} at {self.reader}: {self.text}"


class Acknowledgement(NamedTuple):
    """A producer was told that its event is in the log."""

    log_id: str
    position: Position
    marker: str | None
    thread_id: str | None


def data_marker(event: WebSocketEvent) -> Iterable[str]:
    """Return the words of a delta, or the field ``marker`` of an event's data."""
    data: Any = event.data
    if not isinstance(data, Mapping):
        return ()
    if event.type == EventType.AGENT_DELTA:
        return str(data.get("delta", "")).split()
    marker = data.get("marker")
    return () if marker is None else (str(marker),)


class _Reader:
    """What one reader received, in one epoch after the other."""

    def __init__(self, name: str, log_id: str, thread_ids: Collection[str] | None) -> None:
        self.name = name
        self.log_id = log_id
        self.thread_ids = thread_ids
        self.place: Position | None = None
        self.holes: set[Position] = set()
        self.got: dict[Position, frozenset[str]] = {}
        """By place: the markers of the event that came there, or of the range that covers it."""
        self.merged: set[Position] = set()
        self.superseded: set[Position] = set()
        self.erased: set[Position] = set()
        self.marked: dict[str, Position] = {}
        """By marker: the end of the event that had it."""
        self.begins: dict[str, int] = {}
        """By epoch: the seq after which this reader began."""


class OrderingChecker:
    """
    Tells whether readers got what producers were acknowledged, once and in order.

    Feed :meth:`received` and :meth:`gap` in the order of the wire, and
    :meth:`acknowledged` at any time; then ask :meth:`problems`. Merged events
    count by their range, from ``from_seq`` to ``seq``. A reader that resumes
    goes on under its name; one that begins anew has another name.
    """

    def __init__(self, *, markers: Markers = data_marker) -> None:
        self._markers = markers
        self._readers: dict[str, _Reader] = {}
        self._acknowledged: list[Acknowledgement] = []
        self._problems: list[Problem] = []
        self.events_received = 0

    # Feeding

    def begin(
        self,
        reader: str,
        log_id: str,
        after: Position | None = None,
        *,
        thread_ids: Collection[str] | None = None,
    ) -> None:
        """
        A reader of a log begins, after a place; without one, after its first event's.

        One that asked for some threads only must get their events, and no other's.
        """
        known = self._readers[reader] = _Reader(reader, log_id, thread_ids)
        if after is not None:
            known.place = after
            known.begins[after.epoch] = after.seq

    def acknowledged(
        self,
        log_id: str,
        position: Position,
        marker: str | None = None,
        *,
        thread_id: str | None = None,
    ) -> None:
        """A producer was told that its event, with this content, is at a place."""
        self._acknowledged.append(Acknowledgement(log_id, position, marker, thread_id))

    def received(self, reader: str, event: WebSocketEvent, log_id: str) -> None:
        """
        A reader received an event of a log, next in its order.

        ``log_id`` is that which the event itself names.
        """
        known = self._readers[reader]
        self.events_received += 1
        end = event.position
        first = end.seq if event.from_seq is None else event.from_seq
        if log_id != known.log_id:
            self._note(Fault.FOREIGN, known, f"{end} is of {log_id}, not of {known.log_id}", end)
            return
        if known.thread_ids is not None and event.thread_id not in known.thread_ids:
            self._note(Fault.FOREIGN, known, f"{end} is of thread {event.thread_id}", end)
            return
        self._place(known, first, end)
        self._keep(known, first, end, frozenset(self._markers(event)))
        if event.type == EventType.ERASED:
            # What stood there may be what another reader got, or was acknowledged.
            known.erased.update(Position(end.epoch, seq) for seq in range(first, end.seq + 1))
        elif event.type != EventType.AGENT_DELTA:
            # The latest of several with one key stands for them; of the others nothing is said.
            known.superseded.update(Position(end.epoch, seq) for seq in range(first, end.seq))

    def gap(self, reader: str, after: Position, resumes_at: Position) -> None:
        """A reader was told that all between two places is lost."""
        known = self._readers[reader]
        self._note(Fault.TOLD_LOSS, known, f"between {after} and {resumes_at}", after)
        known.place = Position(resumes_at.epoch, resumes_at.seq - 1)
        known.begins.setdefault(resumes_at.epoch, resumes_at.seq - 1)

    def _place(self, reader: _Reader, first: int, end: Position) -> None:
        place = reader.place
        if place is None or place.epoch != end.epoch:
            if place is not None:
                self._note(Fault.HOLE, reader, f"from {place} to {end}, and no gap between", end)
            reader.begins.setdefault(end.epoch, first - 1)
        elif first > place.seq + 1 and reader.thread_ids is None:
            missing = {Position(end.epoch, seq) for seq in range(place.seq + 1, first)}
            reader.holes |= missing
        elif end.seq <= place.seq and not self._is_double(reader, first, end):
            self._note(Fault.SWAP, reader, f"{end} came after {place}", end)
        if place is None or place.epoch != end.epoch or end.seq > place.seq:
            reader.place = end

    def _is_double(self, reader: _Reader, first: int, end: Position) -> bool:
        return any(Position(end.epoch, seq) in reader.got for seq in range(first, end.seq + 1))

    def _keep(self, reader: _Reader, first: int, end: Position, markers: frozenset[str]) -> None:
        for seq in range(first, end.seq + 1):
            place = Position(end.epoch, seq)
            if place in reader.got:
                self._note(Fault.DOUBLE, reader, f"{place} came again", place)
            reader.got[place] = markers
            reader.holes.discard(place)
            if first != end.seq:
                reader.merged.add(place)
        for marker in markers:
            before = reader.marked.setdefault(marker, end)
            if before != end:
                text = f"{marker!r} is at {before} and at {end}"
                self._note(Fault.REPEATED, reader, text, end)

    def _note(self, fault: Fault, reader: _Reader, text: str, place: Position) -> None:
        self._problems.append(Problem(fault, reader.name, text, place))

    # Judging

    def problems(self, heads: Mapping[str, Position] | None = None) -> list[Problem]:
        """
        Return what does not hold; ``heads`` says where each log ends.

        May be asked again after more was fed.
        """
        found = list(self._problems)
        for reader in self._readers.values():
            found += _holes(reader)
            if heads is not None and reader.log_id in heads:
                found += _behind(reader, heads[reader.log_id])
        found += self._lost()
        found += self._changed()
        return found

    def _lost(self) -> Iterable[Problem]:
        by_log: defaultdict[str, list[_Reader]] = defaultdict(list)
        for reader in self._readers.values():
            by_log[reader.log_id].append(reader)
        for ack in self._acknowledged:
            for reader in by_log[ack.log_id]:
                begin = reader.begins.get(ack.position.epoch)
                if begin is not None and ack.position.seq <= begin:
                    continue
                if reader.thread_ids is not None and ack.thread_id not in reader.thread_ids:
                    continue
                problem = _missed(reader, ack)
                if problem is not None:
                    yield problem

    def _changed(self) -> Iterable[Problem]:
        """Compare what the readers of one log got at the places that none got merged."""
        seen: dict[tuple[str, Position], tuple[str, frozenset[str]]] = {}
        for reader in self._readers.values():
            for place, markers in reader.got.items():
                if place in reader.merged or place in reader.erased:
                    continue
                first = seen.setdefault((reader.log_id, place), (reader.name, markers))
                if first[1] != markers:
                    text = f"{place} is {sorted(markers)} here, {sorted(first[1])} at {first[0]}"
                    yield Problem(Fault.CHANGED, reader.name, text, place)


def _holes(reader: _Reader) -> Iterable[Problem]:
    if reader.holes:
        first, count = min(reader.holes), len(reader.holes)
        yield Problem(Fault.HOLE, reader.name, f"{count} missing, the first is {first}", first)


def _behind(reader: _Reader, head: Position) -> Iterable[Problem]:
    place = reader.place
    if reader.thread_ids is None and head.seq and not _has_reached(place, head):
        yield Problem(Fault.BEHIND, reader.name, f"it is at {place}, the log ends at {head}", head)


def _has_reached(place: Position | None, head: Position) -> bool:
    return place is not None and place.epoch == head.epoch and place.seq >= head.seq


def _unsaid(reader: _Reader, ack: Acknowledgement) -> set[str | None]:
    is_unsaid = ack.position in reader.superseded or ack.position in reader.erased
    return {ack.marker} if is_unsaid else set()


def _missed(reader: _Reader, ack: Acknowledgement) -> Problem | None:
    got = reader.got.get(ack.position)
    if got is None:
        text = f"{ack.position} ({ack.marker}) never came"
        return Problem(Fault.LOST, reader.name, text, ack.position)
    if ack.marker is not None and ack.marker not in got | _unsaid(reader, ack):
        text = f"{ack.position} was acknowledged for {ack.marker!r}, and is {sorted(got)}"
        return Problem(Fault.CHANGED, reader.name, text, ack.position)
    return None

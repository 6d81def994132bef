"""Reading logs whose store may have dropped something on its own account. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from catenary.eventlog.terms import Gap, Terms
from catenary.position import Position
from catenary.record import Record

CHUNK_EVENTS = 500


def whole_after(records: Iterable[Record], after: int) -> list[Record]:
    """Return the records that follow a number without a hole."""
    whole: list[Record] = []
    reached = after
    for record in records:
        if record.first_seq > reached + 1:
            break
        whole.append(record)
        reached = record.seq
    return whole


def gap_before(records: Iterable[Record], start: Position, terms: Terms) -> Gap:
    """Return the gap from a place to what there is after it."""
    later = [record.first_seq for record in records]
    resumes_at = min(later, default=terms.head + 1)
    return Gap(start, Position(terms.epoch_of(resumes_at), resumes_at), "retention")


def in_chunks(read: Callable[[int], list[Record]], after: int, through: int) -> Iterator[Record]:
    """Return the records that ``read`` finds above ``after``, in order, whole, in chunks."""
    while after < through:
        records = read(after)
        for record in records:
            if record.seq > through:
                return
            yield record
        if not records:
            return
        after = records[-1].seq

"""
Marks: where in a stream some of a log's numbers are.

A log's batches lie between those of others, and numbers say nothing of where.
Each message holds a few marks, about evenly spread over what is retained. So a
reader finds any number with one call and reads little that it does not want,
and the oldest can be dropped without being read. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

MARKS_KEPT = 12


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """
    A batch: its first number, where it is in the stream, and all that came before it.

    ``events`` and ``size_bytes`` count from the beginning of the log; what was
    merged since counts as merged.
    """

    number: int
    seq: int
    events: int
    size_bytes: int


class Cut(NamedTuple):
    """A place that retention may drop through: the first number kept, and what went before it."""

    first: int
    events: int
    size_bytes: int


def with_mark(marks: Sequence[Mark], mark: Mark) -> list[Mark]:
    """Return marks with one more at the end; beyond the number kept the closest neighbours thin out."""
    found = [*marks, mark]
    if len(found) > MARKS_KEPT:
        # The first stays, for what is retained begins there; the last stays, for most read there.
        gaps = [found[at + 1].events - found[at - 1].events for at in range(1, len(found) - 1)]
        del found[1 + gaps.index(min(gaps))]
    return found


def mark_before(marks: Iterable[Mark], number: int) -> Mark | None:
    """Return the last mark that is not behind a number; None if there is none."""
    found = None
    for mark in marks:
        if mark.number > number:
            break
        found = mark
    return found


def marks_from(marks: Sequence[Mark], first: int) -> list[Mark]:
    """Return the marks that are needed to find ``first`` and what follows."""
    begin = mark_before(marks, first)
    return [mark for mark in marks if begin is None or mark.number >= begin.number]


def cut_at(marks: Sequence[Mark], end: Mark, over_events: float, over_bytes: float) -> Cut:
    """
    Return where so much lies before that both totals are reached.

    ``end`` stands behind the last batch. Between two marks events and bytes are
    taken as even, which they are within a batch.
    """
    points = [*marks, end]
    first = points[0]
    cut = Cut(first.number, first.events, first.size_bytes)
    for last in points[1:]:
        if cut.events >= over_events and cut.size_bytes >= over_bytes:
            break
        events, size = last.events - first.events, last.size_bytes - first.size_bytes
        part = max(
            (over_events - first.events) / events if events else 0.0,
            (over_bytes - first.size_bytes) / size if size else 0.0,
        )
        part = min(1.0, max(0.0, part))
        numbers = last.number - first.number
        taken = min(numbers, -int(-part * numbers // 1))
        share = taken / numbers if numbers else 1.0
        cut = Cut(
            first.number + taken,
            first.events + int(events * share),
            first.size_bytes + int(size * share),
        )
        first = last
    return cut


def cut_before(marks: Sequence[Mark], end: Mark, number: int) -> Cut:
    """Return what lies before a number, as :func:`cut_at` reckons it."""
    points = [*marks, end]
    for first, last in itertools.pairwise(points):
        if number < last.number:
            span = last.number - first.number
            share = max(0, number - first.number) / span
            return Cut(
                number,
                first.events + int((last.events - first.events) * share),
                first.size_bytes + int((last.size_bytes - first.size_bytes) * share),
            )
    return Cut(number, end.events, end.size_bytes)

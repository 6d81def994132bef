"""Pages: what a reader gets of a log in one step. Pure: the logs bring their records."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from catenary.eventlog.model import Page
from catenary.eventlog.terms import Gap, Terms
from catenary.position import Position
from catenary.record import Record, rest_after


def fill_page(
    records: Iterable[Record],
    terms: Terms,
    start: Position,
    gap: Gap | None,
    *,
    limit: int,
    limit_bytes: int,
    thread_ids: Collection[str] | None,
    run_id: str | None,
) -> Page:
    """
    Return the page that begins at ``start``, after its gap if there is one.

    ``records`` are those that hold a number above ``start``, in order; they may
    go beyond the term, which ends a page. The first record that fits the
    filters is taken whatever its size.
    """
    last = terms.last_of(start.epoch) or 0
    taken: list[Record] = []
    size, reached = 0, start.seq
    for record in records:
        if record.seq > last or len(taken) >= limit:
            break
        if (thread_ids is None or record.thread_id in thread_ids) and (
            run_id is None or record.run_id == run_id
        ):
            own = rest_after(record, reached) if record.first_seq <= reached else record
            if own.epoch != start.epoch:
                # Its own term is forgotten: it counts as one of the oldest that is known.
                own = msgspec.structs.replace(own, epoch=start.epoch)
            size += own.size_bytes
            if size > limit_bytes and taken:
                break
            taken.append(own)
        reached = record.seq
    place = Position(start.epoch, reached)
    return Page(taken, place, gap, place == terms.position)

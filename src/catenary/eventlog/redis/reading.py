"""Pages of a log, each read from Redis in one call."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from catenary.eventlog.base import PAGE_BYTES
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.model import Page
from catenary.eventlog.paging import fill_page
from catenary.eventlog.redis.keys import LogKeys
from catenary.eventlog.redis.link import Call
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stored import Header, header_of, records_of, terms_of
from catenary.eventlog.shared.reading import CHUNK_EVENTS, gap_before, in_chunks, whole_after
from catenary.eventlog.terms import Gap, Terms
from catenary.position import Position
from catenary.record import Record

HEAD = 10**13
"""A number that no log reaches: what follows it is only the terms."""


class LogAt(NamedTuple):
    """Which log, and what its scripts are told of the time."""

    bucket: int
    keys: LogKeys
    now: str


class Chunk(NamedTuple):
    """A stretch of a log as of one moment, and its terms."""

    terms: Terms
    batches: list[tuple[Header, bytes]]

    def records(self, after: int) -> list[Record]:
        """Return the records that hold a number above ``after``, whole."""
        found = (record for header, batch in self.batches for record in records_of(batch, header))
        return [record for record in found if record.seq > after]


def read_chunk(
    store: Store,
    log: LogAt,
    after: int,
    *,
    limit: int = CHUNK_EVENTS,
    limit_bytes: int = PAGE_BYTES,
) -> Chunk:
    """Return batches with about so many records above ``after``, in order."""
    keys = (log.keys.meta, log.keys.stream, log.keys.rewritten)
    args = (log.now, new_epoch(), after, limit, limit_bytes)
    answer: list[Any] = store.call_all([Call(log.bucket, "read", keys, args)])[0]
    epoch, head, first, former, batches = answer
    terms = terms_of(epoch.decode(), head, first, former.decode())
    return Chunk(terms, [(header_of(batch), batch) for batch in batches])


def records_between(store: Store, log: LogAt, after: int, through: int) -> Iterator[Record]:
    """Return the records that hold a number above ``after``, in order, whole, in chunks."""
    return in_chunks(lambda place: read_chunk(store, log, place).records(place), after, through)


def read_page(
    store: Store,
    log: LogAt,
    after: Position,
    *,
    limit: int,
    limit_bytes: int,
    thread_ids: Collection[str] | None,
    run_id: str | None,
) -> Page:
    """Return the next page after a place, as ``EventLog.read`` says."""
    is_filtered = thread_ids is not None or run_id is not None
    wanted = CHUNK_EVENTS if is_filtered else limit
    chunk = read_chunk(store, log, after.seq, limit=wanted, limit_bytes=limit_bytes)
    gap = chunk.terms.gap_after(after)
    start = gap.place if gap is not None else after
    if start.seq < after.seq:
        # The place lies beyond what there is: what follows it was not asked for.
        chunk = read_chunk(store, log, start.seq, limit=wanted, limit_bytes=limit_bytes)
    whole, missing = _contiguous(chunk, start)
    if missing is not None and gap is None:
        gap, start = missing, missing.place
        whole, _ = _contiguous(chunk, start)
    return fill_page(
        whole,
        chunk.terms,
        start,
        gap,
        limit=limit,
        limit_bytes=limit_bytes,
        thread_ids=thread_ids,
        run_id=run_id,
    )


def _contiguous(chunk: Chunk, start: Position) -> tuple[list[Record], Gap | None]:
    """
    Return the records that follow a place without a hole.

    Where the first of them is missing though it should be there, the store has
    dropped it on its own account, and the gap says how far.
    """
    records = chunk.records(start.seq)
    whole = whole_after(records, start.seq)
    if whole or start.seq >= chunk.terms.head:
        return whole, None
    return [], gap_before(records, start, chunk.terms)

"""Pages of a log, read from JetStream."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

from catenary.eventlog.base import PAGE_BYTES
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.model import Page
from catenary.eventlog.nats.changing import IDLE_SECONDS
from catenary.eventlog.nats.errors import Conflict
from catenary.eventlog.nats.marks import mark_before
from catenary.eventlog.nats.posts import Post
from catenary.eventlog.nats.state import (
    Batch,
    Known,
    State,
    batch_in,
    encode,
    known_in,
    stated,
)
from catenary.eventlog.nats.store import PAGE_MESSAGES, Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.paging import fill_page
from catenary.eventlog.shared.reading import CHUNK_EVENTS, gap_before, in_chunks, whole_after
from catenary.eventlog.terms import Gap
from catenary.position import Position
from catenary.record import Record

_OVERHEAD_BYTES = 64 * 1024
_LOOKS = 20
_PAUSE = 0.02


class Last(NamedTuple):
    """The last message of a log, with its records."""

    known: Known
    batch: Batch

    @property
    def state(self) -> State:
        """The state of the log."""
        return self.known.state


def read_last(store: Store, stream: NatsStream, at: int) -> Last:
    """Return the last message of a log as its leader has it; a new log gets its first term."""
    while True:
        found = store.last(store.names.events_stream, stream.names.events)
        if found is not None:
            batch = batch_in(found.payload)
            last = Last(known_in(found.seq, batch), batch)
            stream.see(last.known)
            return last
        first = encode(stated(State(new_epoch(), store.life), at))
        try:
            store.publish(Post(stream.names.events, first, expected=0, ttl=IDLE_SECONDS))
        except Conflict:
            continue


def records_after(
    store: Store,
    stream: NatsStream,
    last: Last,
    after: int,
    *,
    limit: int = CHUNK_EVENTS,
    limit_bytes: int = PAGE_BYTES,
) -> list[Record]:
    """
    Return about so many records that hold a number above ``after``, in order, whole.

    There may be holes, where the store has lost something, and fewer than there
    are, where a replica is behind.
    """
    batch = last.batch
    if batch.events and batch.first <= after + 1:
        return [record for record in batch.records() if record.seq > after]
    found: list[Record] = []
    size = 0
    for part in batches_after(store, stream, last.state, after, limit_bytes + _OVERHEAD_BYTES):
        for record in part.records():
            if record.seq > after:
                found.append(record)
                size += record.size_bytes
        if len(found) >= limit or size >= limit_bytes:
            break
    return found


def batches_after(
    store: Store, stream: NatsStream, state: State, after: int, limit_bytes: int
) -> Iterator[Batch]:
    """Return the batches that hold a number above ``after``, in order; rewritten ones first."""
    number = after + 1
    names, events = stream.names, store.names.events_stream
    parts = [(names.events, False)]
    if number <= state.through and state.generation:
        parts.insert(0, (names.rewritten + state.generation, True))
    for subject, is_rewritten in parts:
        seq = _place_of(stream, state, number, is_rewritten=is_rewritten)
        while number <= state.head:
            found, pending = store.batch(
                events, subject, seq, limit=PAGE_MESSAGES, limit_bytes=limit_bytes
            )
            for one in found:
                batch = batch_in(one.payload)
                if batch.events and batch.last >= number:
                    number = batch.last + 1
                    if not is_rewritten or number <= state.through:
                        # What follows the last rewritten one stands anywhere.
                        stream.remember_place(number, one.seq + 1)
                    yield batch
            if not found or not pending:
                break
            seq = found[-1].seq + 1


def _place_of(stream: NatsStream, state: State, number: int, *, is_rewritten: bool) -> int:
    """Return where to begin to read for a number: there, or before."""
    place = stream.places.get(number)
    if place is not None:
        return place
    # What was rewritten stands behind what follows it.
    marks = [mark for mark in state.marks if (mark.number <= state.through) is is_rewritten]
    mark = mark_before(marks, number)
    return mark.seq if mark is not None else 1


def records_between(
    store: Store, stream: NatsStream, last: Last, after: int, through: int
) -> Iterator[Record]:
    """Return the records that hold a number above ``after``, in order, whole, in chunks."""
    return in_chunks(lambda place: records_after(store, stream, last, place), after, through)


def read_page(
    store: Store,
    stream: NatsStream,
    at: int,
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
    last = read_last(store, stream, at)
    gap = last.state.terms.gap_after(after)
    start = gap.place if gap is not None else after
    last, whole, missing = _contiguous(
        store, stream, last, start, at, limit=wanted, limit_bytes=limit_bytes
    )
    if missing is not None and gap is None:
        gap, start = missing, missing.place
        last, whole, _ = _contiguous(
            store, stream, last, start, at, limit=wanted, limit_bytes=limit_bytes
        )
    return fill_page(
        whole,
        last.state.terms,
        start,
        gap,
        limit=limit,
        limit_bytes=limit_bytes,
        thread_ids=thread_ids,
        run_id=run_id,
    )


def _contiguous(
    store: Store,
    stream: NatsStream,
    last: Last,
    start: Position,
    at: int,
    *,
    limit: int,
    limit_bytes: int,
) -> tuple[Last, list[Record], Gap | None]:
    """
    Return the records that follow a place without a hole.

    Where the first of them is missing though it should be there, it was
    rewritten meanwhile, a replica is behind, or the store has dropped it on its
    own account. In the last case the gap says how far.
    """
    records: list[Record] = []
    for _ in range(_LOOKS):
        records = records_after(
            store, stream, last, start.seq, limit=limit, limit_bytes=limit_bytes
        )
        whole = whole_after(records, start.seq)
        if whole or start.seq >= last.state.head:
            return last, whole, None
        was_led = bool(stream.places)
        stream.places.clear()
        former, last = last, read_last(store, stream, at)
        if former.known.seq == last.known.seq and not was_led:
            if store.placed.replicas == 1:
                break
            time.sleep(_PAUSE)
    if start.seq + 1 < last.state.first:
        # Retention was faster: what follows is where it has left off.
        return last, [], last.state.terms.gap_after(start)
    return last, [], gap_before(records, start, last.state.terms)

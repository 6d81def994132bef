"""Pages of a log, read from SQLite in one short transaction each."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from catenary.eventlog.base import PAGE_BYTES
from catenary.eventlog.model import Page
from catenary.eventlog.paging import fill_page
from catenary.eventlog.sqlite.places import place_of, unpack
from catenary.eventlog.sqlite.state import terms_of
from catenary.position import Position
from catenary.record import Record

CHUNK_ROWS = 500

_SIZES = (
    "SELECT group_concat(place || ':' || bytes) FROM (SELECT place, bytes FROM batches "
    "WHERE place > ? AND place < ? ORDER BY place LIMIT ?)"
)
_BODIES = (
    "SELECT group_concat(place || ':' || hex(body)) FROM batches WHERE place > ? AND place <= ?"
)


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Read everything within as of one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def records_between(
    connection: sqlite3.Connection,
    log: int,
    after: int,
    through: int,
    chunk_bytes: int = PAGE_BYTES,
) -> Iterator[Record]:
    """
    Return the records that hold a number above ``after``, in order, whole.

    They are fetched in chunks of about ``chunk_bytes``.
    """
    begin, end = place_of(log, after), place_of(log + 1, 0)
    while (last := _end_of_chunk(connection, begin, end, chunk_bytes)) is not None:
        for place, body in _bodies(connection, begin, last):
            for record in unpack(place, body):
                if record.seq > through:
                    return
                if record.seq > after:
                    yield record
        begin = last


# Each row that SQLite hands out costs a turn at the interpreter's lock, which a busy loop
# lets go every 5 ms only. So many rows are handed out as one text.


def _end_of_chunk(
    connection: sqlite3.Connection, begin: int, end: int, chunk_bytes: int
) -> int | None:
    listed = connection.execute(_SIZES, (begin, end, CHUNK_ROWS)).fetchone()[0]
    if listed is None:
        return None
    size = 0
    last = begin
    for row in sorted(tuple(map(int, row.split(":"))) for row in listed.split(",")):
        if last != begin and size + row[1] > chunk_bytes:
            break
        last = row[0]
        size += row[1]
    return last


def _bodies(
    connection: sqlite3.Connection, after: int, through: int
) -> Iterator[tuple[int, bytes]]:
    text: str = connection.execute(_BODIES, (after, through)).fetchone()[0]
    rows = (row.split(":") for row in text.split(","))
    for place, body in sorted((int(place), body) for place, body in rows):
        yield place, bytes.fromhex(body)


def read_page(
    connection: sqlite3.Connection,
    log: int,
    after: Position,
    *,
    limit: int,
    limit_bytes: int,
    thread_ids: Collection[str] | None,
    run_id: str | None,
) -> Page:
    """Return the next page after a place, as ``EventLog.read`` says."""
    with snapshot(connection):
        terms = terms_of(connection, log)
        gap = terms.gap_after(after)
        start = gap.place if gap is not None else after
        last = terms.last_of(start.epoch) or 0
        return fill_page(
            records_between(connection, log, start.seq, last, limit_bytes),
            terms,
            start,
            gap,
            limit=limit,
            limit_bytes=limit_bytes,
            thread_ids=thread_ids,
            run_id=run_id,
        )


def locate(connection: sqlite3.Connection, log: int, after: str) -> Position | None:
    """Turn a keyword or a position's text into a place; None if it proves a loss."""
    with snapshot(connection):
        terms = terms_of(connection, log)
        if after == "start":
            return terms.start
        if after == "now":
            return terms.position
        if after == "open":
            oldest = oldest_open(connection, log)
            if oldest is None:
                return terms.position
            first = max(oldest, terms.first)
            return Position(terms.epoch_of(first), first - 1)
    place = Position.parse(after)
    return None if terms.is_future(place) else place


def oldest_open(connection: sqlite3.Connection, log: int) -> int | None:
    """Return the first ``seq`` of a log's oldest open run."""
    row = connection.execute(
        "SELECT min(first_seq) FROM runs WHERE log = ? AND is_open", (log,)
    ).fetchone()
    oldest: int | None = row[0]
    return oldest

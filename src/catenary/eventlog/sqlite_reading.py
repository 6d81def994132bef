"""Pages of a log, read from SQLite in one short transaction each."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from catenary.eventlog.model import Page
from catenary.eventlog.sqlite_batch import place_of, unpack
from catenary.eventlog.sqlite_state import terms_of
from catenary.position import Position
from catenary.record import Record, rest_after


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Read everything within as of one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def records_between(
    connection: sqlite3.Connection, log: int, after: int, through: int
) -> Iterator[Record]:
    """Return the records that hold a number above ``after``, in order, whole."""
    rows = connection.execute(
        "SELECT place, body FROM batches WHERE place > ? AND place < ? ORDER BY place",
        (place_of(log, after), place_of(log + 1, 0)),
    )
    for place, body in rows:
        for record in unpack(place, body):
            if record.seq > through:
                return
            if record.seq > after:
                yield record


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
        taken: list[Record] = []
        size, reached = 0, start.seq
        for record in records_between(connection, log, start.seq, last):
            if record.first_seq <= reached:
                record = rest_after(record, reached)  # noqa: PLW2901
            reached = record.seq
            if (thread_ids is None or record.thread_id in thread_ids) and (
                run_id is None or record.run_id == run_id
            ):
                taken.append(record)
                size += record.size_bytes
                if len(taken) >= limit or size >= limit_bytes:
                    break
        place = Position(start.epoch, reached)
        return Page(taken, place, gap, place == terms.position)


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

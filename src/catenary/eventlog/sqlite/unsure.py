"""Commits whose answer was lost: whether the file has them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from catenary.eventlog.committer.group import Batch, Outcome
from catenary.eventlog.sqlite.places import place_of
from catenary.eventlog.sqlite.state import SqliteStream

_MARK = "last work"


class Unsure(NamedTuple):
    """
    A transaction whose commit is under way, or was not answered.

    ``batches`` will be tried again. ``mark`` was written with whatever else
    than batches was in it; batches alone are known by their own rows.
    """

    batches: Sequence[Batch]
    outcome: Outcome
    mark: str | None


def write_mark(connection: sqlite3.Connection, mark: str) -> None:
    """Write into a transaction by what it will be known."""
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (_MARK, mark))


def is_stored(connection: sqlite3.Connection, unsure: Unsure, producer: int) -> bool:
    """Whether the file has a transaction of this producer's. Nothing was written since."""
    if unsure.mark is not None:
        row = connection.execute("SELECT value FROM meta WHERE name = ?", (_MARK,)).fetchone()
        return row is not None and row[0] == unsure.mark
    numbers = {batch.stream: batch.number for batch in unsure.batches}
    for stream, _, record in reversed(unsure.outcome.appended):
        assert isinstance(stream, SqliteStream)
        row = connection.execute(
            "SELECT producer, number FROM batches WHERE place >= ? AND place < ? "
            "ORDER BY place LIMIT 1",
            (place_of(stream.number, record.seq), place_of(stream.number + 1, 0)),
        ).fetchone()
        return bool(row == (producer, numbers.get(stream)))
    return False

"""What SQLite keeps of one log beside its batches: its terms and sizes."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from catenary.eventlog.base import new_epoch
from catenary.eventlog.committer_stream import CommitStream
from catenary.eventlog.sqlite_batch import place_of, seq_of
from catenary.eventlog.terms import Term, Terms
from catenary.position import Position

_encode = msgspec.msgpack.Encoder().encode
_decode_terms = msgspec.msgpack.Decoder(list[Term]).decode


class LogState(msgspec.Struct):
    """Terms and sizes of a log. ``bytes`` counts as ``Record.size_bytes`` does."""

    terms: Terms
    events: int = 0
    bytes: int = 0

    def copy(self) -> LogState:
        """Return a state that changes without this one."""
        return LogState(msgspec.structs.replace(self.terms), self.events, self.bytes)


class SqliteStream(CommitStream):
    """
    A stream whose log is in SQLite. The state is the writer's: no other thread reads it.

    ``number`` stands for the log's id in the tables.
    """

    __slots__ = ("number", "seen", "state")

    def __init__(self, log_id: str) -> None:
        super().__init__(log_id)
        self.number = 0
        self.state = LogState(Terms(""))
        self.seen: Position | None = None

    def show(self, stored: StoredLog) -> None:
        """Take over what is stored; under the log's lock, before anything else is committed."""
        if not self.is_loaded:
            self.number, self.state = stored.number, stored.state
            self.epoch, self.head = stored.state.terms.position
            self.seen = stored.seen
            self.is_loaded = True


class StoredLog(NamedTuple):
    """What the tables say of a log."""

    number: int
    state: LogState
    seen: Position | None


_COLUMNS = "log, epoch, former, head, first, events, bytes, seen_epoch, seen_seq"


def find_log(connection: sqlite3.Connection, log_id: str) -> StoredLog | None:
    """Return what is stored of a log; None if there is none."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM logs WHERE log_id = ?", (log_id,)).fetchone()
    return _stored(connection, row) if row is not None else None


def log_of(connection: sqlite3.Connection, number: int) -> LogState:
    """Return the state of a log that exists."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM logs WHERE log = ?", (number,)).fetchone()
    return _stored(connection, row).state


def _stored(connection: sqlite3.Connection, row: tuple[object, ...]) -> StoredLog:
    number, epoch, former, head, first, events, bytes_, seen_epoch, seen_seq = row
    # The row is as old as the log's last upkeep: what was appended since is in the batches.
    place, more, more_bytes = connection.execute(
        "SELECT max(place), sum(events), sum(bytes) FROM batches WHERE place > ? AND place < ?",
        (place_of(number, head), place_of(number + 1, 0)),
    ).fetchone()
    terms = Terms(epoch, seq_of(place) if place else head, first, _decode_terms(former))
    seen = Position(seen_epoch, seen_seq) if seen_epoch == epoch else None
    return StoredLog(
        number, LogState(terms, events + (more or 0), bytes_ + (more_bytes or 0)), seen
    )


def create_log(connection: sqlite3.Connection, log_id: str) -> StoredLog:
    """Store a new log with its first term."""
    terms = Terms(new_epoch())
    number = connection.execute(
        "INSERT INTO logs (log_id, epoch, former, head, first, events, bytes) "
        "VALUES (?, ?, ?, 0, 1, 0, 0)",
        (log_id, terms.epoch, _encode([])),
    ).lastrowid
    assert number is not None
    return StoredLog(number, LogState(terms), None)


def save_log(connection: sqlite3.Connection, number: int, state: LogState) -> None:
    """Store a state; the batches committed so far are in it."""
    terms = state.terms
    connection.execute(
        "UPDATE logs SET epoch = ?, former = ?, head = ?, first = ?, events = ?, bytes = ? "
        "WHERE log = ?",
        (
            terms.epoch,
            _encode(terms.former),
            terms.head,
            terms.first,
            state.events,
            state.bytes,
            number,
        ),
    )

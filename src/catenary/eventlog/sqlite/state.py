"""What SQLite keeps of one log beside its batches: its terms and sizes."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from catenary.eventlog.committer.stream import CommitStream
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.model import Retention
from catenary.eventlog.retention import trim_limits
from catenary.eventlog.sqlite.places import place_of, seq_of
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

    __slots__ = ("number", "seen", "state", "trim_bytes", "trim_events")

    def __init__(self, log_id: str) -> None:
        super().__init__(log_id)
        self.number = 0
        self.state = LogState(Terms(""))
        self.seen: Position | None = None
        self.trim_events = 0
        self.trim_bytes = 0

    @property
    def is_trim_due(self) -> bool:
        """Whether the log has grown so much that retention must look at it."""
        return self.state.events > self.trim_events or self.state.bytes > self.trim_bytes

    def trim_later(self, retention: Retention) -> None:
        """Let the log grow by some slack, so that trimming is seldom."""
        self.trim_events, self.trim_bytes = trim_limits(
            retention, self.state.events, self.state.bytes
        )

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


_BY_ID = (
    "SELECT log, epoch, former, head, first, events, bytes, seen_epoch, seen_seq "
    "FROM logs WHERE log_id = ?"
)
_TERMS = "SELECT epoch, former, head, first FROM logs WHERE log = ?"
# A log's row is as old as its last upkeep: what was appended since is in the batches.
_SINCE = "FROM batches WHERE place > ? AND place < ?"
_LAST = f"SELECT place {_SINCE} ORDER BY place DESC LIMIT 1"
_SIZES = f"SELECT total(events), total(bytes) {_SINCE}"


def find_log(connection: sqlite3.Connection, log_id: str) -> StoredLog | None:
    """Return what is stored of a log; None if there is none."""
    row = connection.execute(_BY_ID, (log_id,)).fetchone()
    if row is None:
        return None
    number, epoch, former, head, first, events, bytes_, seen_epoch, seen_seq = row
    since = (place_of(number, head), place_of(number + 1, 0))
    more_events, more_bytes = connection.execute(_SIZES, since).fetchone()
    terms = Terms(epoch, _last(connection, since, head), first, _decode_terms(former))
    seen = Position(seen_epoch, seen_seq) if seen_epoch == epoch else None
    state = LogState(terms, events + int(more_events), bytes_ + int(more_bytes))
    return StoredLog(number, state, seen)


def terms_of(connection: sqlite3.Connection, number: int) -> Terms:
    """Return the terms of a log that exists."""
    epoch, former, head, first = connection.execute(_TERMS, (number,)).fetchone()
    since = (place_of(number, head), place_of(number + 1, 0))
    return Terms(epoch, _last(connection, since, head), first, _decode_terms(former))


def _last(connection: sqlite3.Connection, since: tuple[int, int], head: int) -> int:
    row = connection.execute(_LAST, since).fetchone()
    return seq_of(row[0]) if row is not None else head


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

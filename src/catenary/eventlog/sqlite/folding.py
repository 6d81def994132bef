"""A run's state from what a SQLite log holds of it and what waits to be committed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from catenary.eventlog.entry import Entry
from catenary.eventlog.sqlite.reading import records_between, snapshot
from catenary.eventlog.sqlite.state import SqliteStream
from catenary.eventlog.stream import HeldRun
from catenary.fold import RunFold, RunState, decode_state
from catenary.position import Position
from catenary.record import rest_after
from catenary.wires.native import event_of


def fold_run(
    connection: sqlite3.Connection | None,
    stream: SqliteStream,
    run: HeldRun,
    head: Position,
    waiting: Iterable[Entry],
) -> RunState:
    """Fold a run through ``head``, then what waits. Without a connection all of it waits."""
    fold = _stored(connection, stream, run, head.seq) if connection is not None else RunFold()
    seq = head.seq
    for entry in waiting:
        # Its number is not known yet; that it is above the head is all that folding needs.
        seq += 1
        fold.apply(event_of(entry.to_record(head.epoch or "new", seq, 0)))
    return fold.state


def _stored(
    connection: sqlite3.Connection, stream: SqliteStream, run: HeldRun, head: int
) -> RunFold:
    with snapshot(connection):
        row = connection.execute(
            "SELECT kept_fold FROM runs WHERE log = ? AND run_id = ?", (stream.number, run.run_id)
        ).fetchone()
        kept = row[0] if row is not None else None
        fold = RunFold(decode_state(kept)) if kept is not None else RunFold()
        through = max(fold.last_seq, run.first_seq - 1)
        for record in records_between(connection, stream.number, through, head):
            if record.run_id == run.run_id:
                inside = record.first_seq <= through
                fold.apply(event_of(rest_after(record, through) if inside else record))
        return fold

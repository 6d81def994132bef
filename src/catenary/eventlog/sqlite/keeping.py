"""Retention, compaction and erasing in a SQLite log; all within the writer's transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing

from catenary.eventlog.batch import pack_all
from catenary.eventlog.commands import WINDOW_SECONDS
from catenary.eventlog.model import Retention
from catenary.eventlog.retention import count_to_drop, erased_entry, tombstone
from catenary.eventlog.sqlite.places import place_of, unpack
from catenary.eventlog.sqlite.reading import oldest_open
from catenary.eventlog.sqlite.state import LogState, SqliteStream
from catenary.eventlog.sqlite.transaction import Transaction
from catenary.fold import RunFold, decode_state, encode_state
from catenary.record import Record, merge_adjacent
from catenary.wires.native import event_of

COMPACT_EVENTS = 2000
COMPACT_BYTES = 1024 * 1024
"""How much one step of compaction takes in hand."""

SWEEP_LOGS = 500
"""How many logs one sweep looks at for what is too old."""

ENDED_RUNS_KEPT_MS = 7 * 24 * 3600 * 1000

_ROWS = (
    "SELECT place, events, bytes, body FROM batches WHERE place > ? AND place < ? ORDER BY place"
)


def trim(transaction: Transaction, stream: SqliteStream, retention: Retention) -> None:
    """Drop the oldest records beyond what is kept; what open runs said in them stays folded."""
    connection = transaction.connection
    transaction.flush()
    state = transaction.state(stream)
    oldest = oldest_open(connection, stream.number)
    dropped: list[Record] = []
    with closing(connection.execute(_ROWS, _all_of(stream))) as rows:
        for place, events, bytes_, body in rows:
            records = unpack(place, body)
            count = _count_to_drop(transaction, state, retention, records, oldest)
            if count:
                connection.execute("DELETE FROM batches WHERE place = ?", (place,))
                state.events -= events
                state.bytes -= bytes_
                dropped.extend(records[:count])
                transaction.add(stream, pack_all(records[count:]))
            if count < len(records):
                break
    if dropped:
        _fold(transaction, stream, dropped)
        state.terms.first = dropped[-1].seq + 1
        transaction.save(stream)


def _all_of(stream: SqliteStream, after: int = 0) -> tuple[int, int]:
    return place_of(stream.number, after), place_of(stream.number + 1, 0)


def _count_to_drop(
    transaction: Transaction,
    state: LogState,
    retention: Retention,
    records: list[Record],
    oldest: int | None,
) -> int:
    """As ``count_to_drop`` for the whole log, of which ``records`` are the oldest."""
    limit = retention.events if oldest is None else retention.open_events
    count = count_to_drop(
        records,
        state.bytes,
        retention,
        now_ms=transaction.now_ms,
        open_first_seq=oldest,
    )
    return min(len(records), max(count, state.events - limit))


def _fold(transaction: Transaction, stream: SqliteStream, dropped: Iterable[Record]) -> None:
    connection = transaction.connection
    folds = {
        run_id: RunFold(decode_state(kept)) if kept is not None else RunFold()
        for run_id, kept in connection.execute(
            "SELECT run_id, kept_fold FROM runs WHERE log = ? AND is_open", (stream.number,)
        )
    }
    touched = set()
    for record in dropped:
        if record.run_id in folds:
            folds[record.run_id].apply(event_of(record))
            touched.add(record.run_id)
    for run_id in touched:
        connection.execute(
            "UPDATE runs SET kept_fold = ? WHERE log = ? AND run_id = ?",
            (encode_state(folds[run_id].state), stream.number, run_id),
        )


def compact(transaction: Transaction, stream: SqliteStream, after: int) -> int:
    """Merge a slice of a log after a ``seq``; returns the last ``seq`` of the slice."""
    connection = transaction.connection
    transaction.flush()
    records: list[Record] = []
    taken: list[tuple[int, int, int]] = []
    size = 0
    with closing(connection.execute(_ROWS, _all_of(stream, after))) as rows:
        for place, events, bytes_, body in rows:
            records.extend(unpack(place, body))
            taken.append((place, events, bytes_))
            size += bytes_
            if len(records) >= COMPACT_EVENTS or size >= COMPACT_BYTES:
                break
    if records:
        _replace(transaction, stream, taken, merge_adjacent(records))
    return records[-1].seq if records else transaction.state(stream).terms.head


def compact_runs(
    transaction: Transaction, find: Callable[[sqlite3.Connection, str], SqliteStream], steps: int
) -> None:
    """Compact what ended runs left, a slice a step."""
    connection = transaction.connection
    for _ in range(steps):
        row = connection.execute(
            "SELECT log_id, first_seq, compacted FROM runs JOIN logs USING (log) "
            "WHERE end_type IS NOT NULL AND compacted < last_seq LIMIT 1"
        ).fetchone()
        if row is None:
            return
        stream = find(connection, row[0])
        after = max(row[1] - 1, row[2])
        through = compact(transaction, stream, after)
        connection.execute(
            "UPDATE runs SET compacted = ? WHERE log = ? AND compacted < ? "
            "AND (first_seq > ? OR compacted >= ?)",
            (through, stream.number, through, after, after),
        )


def _replace(
    transaction: Transaction,
    stream: SqliteStream,
    taken: list[tuple[int, int, int]],
    records: Iterable[Record],
) -> None:
    state = transaction.state(stream)
    for place, events, bytes_ in taken:
        transaction.connection.execute("DELETE FROM batches WHERE place = ?", (place,))
        state.events -= events
        state.bytes -= bytes_
    transaction.add(stream, pack_all(records))
    transaction.save(stream)


def erase_thread(transaction: Transaction, stream: SqliteStream, thread_id: str) -> int:
    """Put tombstones in the place of a thread's records; returns how many."""
    connection = transaction.connection
    transaction.flush()
    count = 0
    place, end = _all_of(stream)
    while True:
        row = connection.execute(f"{_ROWS} LIMIT 1", (place, end)).fetchone()
        if row is None:
            break
        place, events, bytes_, body = row
        records = unpack(place, body)
        found = sum(record.thread_id == thread_id for record in records)
        if found:
            count += found
            erased = [
                tombstone(record, stream.log_id) if record.thread_id == thread_id else record
                for record in records
            ]
            _replace(transaction, stream, [(place, events, bytes_)], merge_adjacent(erased))
    connection.execute(
        "UPDATE runs SET is_open = 0, is_reported = 1, agent_name = NULL, kept_fold = NULL, "
        "open_tools = NULL, cancel_reason = NULL WHERE log = ? AND thread_id = ?",
        (stream.number, thread_id),
    )
    return count


def erase_all(transaction: Transaction, stream: SqliteStream) -> int:
    """Delete all of a log but its numbering; returns how many records there were."""
    connection = transaction.connection
    transaction.flush()
    state = transaction.state(stream)
    count = state.events
    connection.execute(
        "DELETE FROM batches WHERE place > ? AND place < ?",
        _all_of(stream),
    )
    for table in ("runs", "keys", "commands"):
        connection.execute(f"DELETE FROM {table} WHERE log = ?", (stream.number,))  # noqa: S608
    state.events = state.bytes = 0
    state.terms.first = state.terms.head + 1
    transaction.save(stream)
    transaction.append(stream, [erased_entry(stream.log_id, transaction.now_ms)])
    return count


def trim_old(
    transaction: Transaction,
    find: Callable[[sqlite3.Connection, str], SqliteStream],
    retention: Retention,
    *,
    after: int,
) -> int:
    """
    Trim by age a slice of the logs, those after a number.

    Returns where the next slice begins; 0 when all had their turn.
    """
    connection = transaction.connection
    oldest_ms = transaction.now_ms - int(retention.age * 1000)
    logs = connection.execute(
        "SELECT log, log_id, (SELECT at FROM batches WHERE place > (log << 40) "
        "AND place < (log + 1 << 40) ORDER BY place LIMIT 1) AS at "
        "FROM logs WHERE log > ? ORDER BY log LIMIT ?",
        (after, SWEEP_LOGS),
    ).fetchall()
    for _, log_id, at in logs:
        if at is not None and at < oldest_ms:
            trim(transaction, find(connection, log_id), retention)
    return logs[-1][0] if len(logs) == SWEEP_LOGS else 0


def expire_keys(transaction: Transaction) -> None:
    """Drop the idempotency keys and ended runs that are older than anyone may ask for."""
    long_ago = transaction.now_ms - int(WINDOW_SECONDS * 1000)
    transaction.connection.execute("DELETE FROM keys WHERE at < ?", (long_ago,))
    transaction.connection.execute(
        "DELETE FROM runs WHERE NOT is_open AND last_at < ? AND is_reported",
        (transaction.now_ms - ENDED_RUNS_KEPT_MS,),
    )

"""One transaction of the writer: what is appended, and what follows from it in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence

from catenary.errors import RunClosed, UsageError
from catenary.eventlog.batch import BatchRow, pack_all
from catenary.eventlog.committer.group import Batch, Outcome
from catenary.eventlog.entry import Entry
from catenary.eventlog.sqlite.places import place_of
from catenary.eventlog.sqlite.runs import RunWriter, is_known_run
from catenary.eventlog.sqlite.state import LogState, SqliteStream, save_log
from catenary.grammar import Step
from catenary.position import Position
from catenary.record import Record

_COLUMNS = "place, first_seq, at, producer, number, events, bytes, body"
_PAGE_BYTES = 4096
_CHUNKS = (64, 8, 1)
"""How many rows one statement inserts: each statement costs a turn at the interpreter's lock."""

_INSERTS = {
    count: f"INSERT INTO batches ({_COLUMNS}) VALUES "  # noqa: S608 - placeholders only
    + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * count)
    for count in _CHUNKS
}


class Transaction:
    """
    A transaction that is open on the writer's connection.

    States that it hands out are copies; streams take them over by an effect,
    after the commit. So a transaction that fails leaves memory as it was.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        holder: str,
        producer: int,
        now_ms: int,
    ) -> None:
        self.connection = connection
        self.outcome = Outcome()
        self.now_ms = now_ms
        self._producer = producer
        self._states: dict[SqliteStream, LogState] = {}
        self._rows: list[tuple[object, ...]] = []
        self.written_bytes = 0
        """About how much the write-ahead log grows."""
        self._runs = RunWriter(connection, holder)
        self.then(self._show_states)

    @property
    def streams(self) -> Collection[SqliteStream]:
        """The streams whose state this transaction changed."""
        return self._states.keys()

    def then(self, effect: Callable[[], None]) -> None:
        """Let something happen in memory after the commit, under the log's lock."""
        self.outcome.effects.append(effect)

    def state(self, stream: SqliteStream) -> LogState:
        """Return the state of a log as this transaction leaves it, to be changed."""
        state = self._states.get(stream)
        if state is None:
            state = self._states[stream] = stream.state.copy()
        return state

    def save(self, stream: SqliteStream) -> None:
        """Store the state of a log, after all that changed it."""
        self.flush()
        save_log(self.connection, stream.number, self.state(stream))

    def _show_states(self) -> None:
        for stream, state in self._states.items():
            stream.state = state
            if stream.epoch != state.terms.epoch:
                stream.begin_term(state.terms.epoch)

    def append_batch(self, batch: Batch) -> None:
        """Append what waited in a log, but for repeats and what the store must refuse."""
        stream = batch.stream
        assert isinstance(stream, SqliteStream)
        entries: Sequence[Entry] = batch.entries
        if stream.refused or any(
            entry.key is not None or entry.step is Step.START for entry in entries
        ):
            entries = self._new_entries(stream, entries)
        if entries:
            self.append(stream, entries, batch.number)

    def append(self, stream: SqliteStream, entries: Iterable[Entry], number: int = 0) -> None:
        """Number the entries and append them."""
        state = self.state(stream)
        epoch, seq, now_ms = state.terms.epoch, state.terms.head, self.now_ms
        records: list[Record] = []
        for entry in entries:
            seq += 1
            record = entry.to_record(epoch, seq, now_ms)
            records.append(record)
            self.outcome.appended.append((stream, entry, record))
            if entry.key is not None:
                self._store_key(stream, entry, record)
            if entry.run_id is not None and entry.step not in (Step.WITHIN, Step.ASIDE):
                self._runs.note(stream.number, entry, record)
        self.add(stream, pack_all(records), number)
        state.terms.head = seq
        self._runs.flush()

    def add(self, stream: SqliteStream, rows: Iterable[BatchRow], number: int = 0) -> None:
        """Insert rows; they count for the log's sizes."""
        state = self.state(stream)
        for row in rows:
            state.events += row.events
            state.bytes += row.size_bytes
            self.written_bytes += len(row.body) + _PAGE_BYTES
            self._rows.append(
                (
                    place_of(stream.number, row.last_seq),
                    row.first_seq,
                    row.at,
                    self._producer,
                    number,
                    row.events,
                    row.size_bytes,
                    row.body,
                )
            )

    def flush(self) -> None:
        """Give the rows to SQLite, many a statement."""
        rows, self._rows = self._rows, []
        begin = 0
        for count in _CHUNKS:
            while len(rows) - begin >= count:
                values = [value for row in rows[begin : begin + count] for value in row]
                self.connection.execute(_INSERTS[count], values)
                begin += count

    def _new_entries(self, stream: SqliteStream, entries: Sequence[Entry]) -> list[Entry]:
        new: list[Entry] = []
        keys: dict[str, Entry] = {}
        closed = dict(stream.refused)
        for entry in entries:
            run_id = entry.run_id
            if entry.key is not None and self._is_repeat(stream, entry, closed):
                continue
            if entry.step is Step.START and run_id is not None and run_id not in closed:
                if is_known_run(self.connection, stream.number, run_id):
                    closed[run_id] = RunClosed(run_id, "a run with this id has been before")
            elif entry.step is Step.ASIDE:
                run_id = None
            if run_id in closed and run_id is not None:
                self.outcome.refused.append((stream, entry, closed[run_id]))
                continue
            if entry.key is not None and (first := keys.setdefault(entry.key, entry)) is not entry:
                first.receipt.share(entry.receipt)
                continue
            new.append(entry)
        return new

    def _is_repeat(self, stream: SqliteStream, entry: Entry, closed: dict[str, RunClosed]) -> bool:
        row = self.connection.execute(
            "SELECT digest, epoch, seq FROM keys WHERE log = ? AND key = ?",
            (stream.number, entry.key),
        ).fetchone()
        if row is None:
            return False
        digest, epoch, seq = row
        if digest != entry.digest:
            error = UsageError(
                f"the idempotency key {entry.key!r} was used for another event of {stream.log_id!r}"
            )
            self.outcome.refused.append((stream, entry, error))
        else:
            self.outcome.repeated.append((stream, entry, Position(epoch, seq)))
        if entry.step is Step.START and entry.run_id is not None:
            # Whatever this process made of the start, the run is not its own.
            closed[entry.run_id] = RunClosed(entry.run_id, "a run with this id has been before")
            run = stream.runs.get(entry.run_id)
            if run is not None:
                self.then(lambda: run.close("a run with this id has been before"))
        return True

    def _store_key(self, stream: SqliteStream, entry: Entry, record: Record) -> None:
        self.connection.execute(
            "INSERT INTO keys (log, key, digest, epoch, seq, at) VALUES (?, ?, ?, ?, ?, ?)",
            (stream.number, entry.key, entry.digest, record.epoch, record.seq, record.at),
        )

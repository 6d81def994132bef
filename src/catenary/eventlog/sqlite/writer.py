"""The writer's side of a SQLite log: opening, committing, upkeep, closing."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catenary.errors import RecordCorrupt
from catenary.eventlog.closing import ending_entries, producer_lost
from catenary.eventlog.committer.group import Group, Outcome
from catenary.eventlog.committer.log import CommittingLog
from catenary.eventlog.committer.stream import CommitStream
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.model import Durability, Retention
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.sqlite import commands, keeping
from catenary.eventlog.sqlite.holder import FileHolder
from catenary.eventlog.sqlite.opening import (
    LeftRun,
    last_heard,
    left_runs,
    note_closing,
    note_opening,
)
from catenary.eventlog.sqlite.readers import THREADS, Readers
from catenary.eventlog.sqlite.schema import errors_of, open_writer
from catenary.eventlog.sqlite.state import SqliteStream, create_log, find_log
from catenary.eventlog.sqlite.transaction import Transaction
from catenary.eventlog.sqlite.unsure import Unsure, is_stored, write_mark
from catenary.eventlog.stream import HeldRun
from catenary.grammar import Step
from catenary.position import Position

PATIENCE = 5.0

logger = logging.getLogger("catenary.eventlog")

_CHECKPOINT_BYTES = 4 * 1024 * 1024
"""How much may be in the write-ahead log before it is written back, in the middle of work."""

_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_IDLE_SECONDS = 1.0
_RUNS_A_TRANSACTION = 200
_COMPACT_STEPS = 4


class SqliteWriter(CommittingLog):
    """What runs on the writer's thread of a SQLite log."""

    def __init__(
        self,
        path: Path,
        *,
        url: str,
        durability: Durability,
        retention: Retention | None,
        patience: float,
        clock: Callable[[], float] = time.time,
        **limits: int,
    ) -> None:
        super().__init__(url=url, clock=clock, **limits)
        self.path = path
        self.durability = durability
        self._retention = retention or Retention()
        self._patience = patience
        self._holder_file = FileHolder(path)
        self._connection: sqlite3.Connection | None = None
        self._readers: Readers | None = None
        self._producer = 0
        self._unsure: Unsure | None = None
        self._marks = 0
        self._touched: set[SqliteStream] = set()
        self._unstored_seen: dict[SqliteStream, Position] = {}
        self._wal_growth = 0
        self._is_scrub_due = False
        self._swept = 0

    def _new_stream(self, log_id: str) -> SqliteStream:
        stream = SqliteStream(log_id)
        stream.trim_later(self._retention)
        return stream

    def stream(self, log_id: str) -> SqliteStream:
        """Return the stream of a log."""
        stream = super().stream(log_id)
        assert isinstance(stream, SqliteStream)
        return stream

    # Opening and closing

    def _open_store(self) -> None:
        with errors_of(self.path):
            self._holder_file.acquire(self._patience)
            self._connection = open_writer(self.path, self.durability)
            # Whatever the file has is loaded again.
            self._unsure = None
            with self._step():
                streams = list(self._streams.values())
                for stream in streams:
                    stream.is_loaded = False
            with self._transaction() as transaction:
                opening = note_opening(transaction.connection, self.durability)
                self._producer = opening.producer
            if opening.needs_new_terms:
                self._begin_all_terms()
            self._load([stream for stream in streams if stream.watchers or stream.open_runs])
            self._take_over_runs()
        self._readers = Readers(self.path, self.machine.pool(THREADS, name="catenary-reader"))

    def _close_store(self) -> None:
        readers, self._readers = self._readers, None
        if readers is not None:
            readers.close()
        connection = self._connection
        if connection is not None:
            self._close_connection(connection, is_complete=readers is not None)
            self._connection = None
        self._holder_file.release()

    def _close_connection(self, connection: sqlite3.Connection, *, is_complete: bool) -> None:
        try:
            if is_complete:
                with self._transaction() as transaction:
                    self._store_seen_places(transaction)
                    note_closing(transaction.connection)
                self._finish(transaction)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            self._note_problem(error)
        finally:
            with suppress(sqlite3.Error):
                connection.close()

    @property
    def _writing(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    # Transactions

    @contextmanager
    def _transaction(self, group: Group | None = None) -> Iterator[Transaction]:
        """
        Give a transaction that commits at the end; what follows in memory is the caller's.

        ``group`` is what is committed, if it is one.
        """
        self._settle_unsure()
        connection = self._writing
        transaction = Transaction(
            connection,
            holder=self.holder,
            producer=self._producer,
            now_ms=self.now_ms(),
        )
        connection.execute("BEGIN IMMEDIATE")
        before = connection.total_changes
        try:
            yield transaction
            transaction.flush()
            if connection.total_changes != before:
                self._unsure = self._marked(group, transaction)
            self._end_transaction()
            self._unsure = None
        except BaseException:
            with suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        self._wal_growth += transaction.written_bytes

    def _end_transaction(self) -> None:
        self._writing.execute("COMMIT")

    def _marked(self, group: Group | None, transaction: Transaction) -> Unsure:
        mark = None
        if group is None or group.works:
            self._marks += 1
            mark = f"{self._producer}:{self._marks}"
            write_mark(self._writing, mark)
        return Unsure(group.batches if group is not None else (), transaction.outcome, mark)

    def _settle_unsure(self) -> None:
        """Let follow in memory what was committed unanswered and is not tried again."""
        unsure, self._unsure = self._unsure, None
        if (
            unsure is not None
            and not unsure.batches
            and is_stored(self._writing, unsure, self._producer)
        ):
            # Whoever waited for it was told that its outcome is not known.
            unsure.outcome.results.clear()
            self._settle(Group([], []), unsure.outcome)

    def _commit(self, group: Group) -> Outcome:
        with errors_of(self.path):
            unsure = self._unsure
            if unsure is not None and group.batches and unsure.batches is group.batches:
                self._unsure = None
                if is_stored(self._writing, unsure, self._producer):
                    unsure.outcome.results.clear()
                    return unsure.outcome
            if self._problem is not None:
                # Where room is short, what is written back makes some.
                with suppress(sqlite3.Error):
                    self._checkpoint()
            self._settle_unsure()
            self._load(group.streams())
            with self._transaction(group) as transaction:
                for batch in group.batches:
                    transaction.append_batch(batch)
                transaction.flush()
                for work in group.works:
                    transaction.outcome.results.append((work, work.act(transaction)))
                self._store_seen_places(transaction)
        self._touched.update(transaction.streams)
        return transaction.outcome

    def _finish(self, transaction: Transaction) -> None:
        """Let follow in memory what the writer committed on its own account."""
        self._settle(Group([], []), transaction.outcome)

    # Loading

    def _load(self, streams: Iterable[CommitStream]) -> None:
        """Load streams before anything is committed for them; new logs get their first term."""
        missing = {
            stream
            for stream in streams
            if not stream.is_loaded and not self._show(self._writing, stream)
        }
        if missing:
            with self._transaction() as transaction:
                for stream in missing:
                    create_log(transaction.connection, stream.log_id)
            for stream in missing:
                self._show(self._writing, stream)

    def _show(self, connection: sqlite3.Connection, stream: CommitStream) -> bool:
        assert isinstance(stream, SqliteStream)
        stored = find_log(connection, stream.log_id)
        if stored is not None:
            with self._step():
                stream.show(stored)
        return stored is not None

    def _loaded_within(self, connection: sqlite3.Connection, log_id: str) -> SqliteStream:
        """Return a stream whose log exists, loaded, within a transaction that has not changed it."""
        stream = self.stream(log_id)
        if not stream.is_loaded:
            self._show(connection, stream)
        return stream

    # Predecessors

    def _all_log_ids(self) -> list[str]:
        return [row[0] for row in self._writing.execute("SELECT log_id FROM logs")]

    def _begin_all_terms(self) -> None:
        with self._transaction() as transaction:
            for log_id in self._all_log_ids():
                self._begin_term(transaction, self._loaded_within(self._writing, log_id))
        self._finish(transaction)

    def _begin_term(self, transaction: Transaction, stream: SqliteStream) -> None:
        transaction.flush()
        transaction.state(stream).terms.begin(new_epoch())
        transaction.save(stream)

    def _take_over_runs(self) -> None:
        """Close the runs of processes that are gone, and hold those that have a lease."""
        runs = list(left_runs(self._writing, self.holder))
        for run in runs:
            if run.lease is not None:
                self._hold(run)
        lost = [run for run in runs if run.lease is None]
        for begin in range(0, len(lost), _RUNS_A_TRANSACTION):
            with self._transaction() as transaction:
                for run in lost[begin : begin + _RUNS_A_TRANSACTION]:
                    self._close_run(transaction, run)
            self._finish(transaction)

    def _close_run(self, transaction: Transaction, run: LeftRun) -> None:
        stream = self._loaded_within(self._writing, run.log_id)
        _, heard = last_heard(self._writing, run)
        end = producer_lost(run.holder, heard)
        entries = ending_entries(run.envelope, run.tools, end, at=transaction.now_ms)
        transaction.append(stream, entries)
        transaction.flush()

    def _hold(self, left: LeftRun) -> None:
        stream = self._loaded_within(self._writing, left.log_id)
        run_id = left.envelope.run_id or ""
        run = HeldRun(run_id, left.envelope.thread_id)
        run.grammar.admit(Step.START)
        run.grammar.open_tools = dict(left.tools)
        run.user_id, run.agent_name = left.envelope.user_id, left.envelope.agent_name
        run.parent_run_id = left.envelope.parent_run_id
        run.lease, run.started_at, run.first_seq = left.lease, left.started_at, left.first_seq
        run.last_seq, run.last_at = last_heard(self._writing, left)
        if left.cancel_requested_at is not None:
            run.request_cancel(left.cancel_requested_at, left.cancel_reason, left.cancel_by)
        keys = self._writing.execute(
            "SELECT key, digest, epoch, seq FROM keys WHERE log = ? ORDER BY seq", (stream.number,)
        ).fetchall()
        with self._step():
            if stream.runs.setdefault(run_id, run) is run:
                stream.open_runs.add(run_id)
            self._busy[stream.log_id] = stream
            for key, digest, epoch, seq in keys:
                if key not in stream.keys:
                    receipt = Receipt()
                    receipt.commit(epoch, seq)
                    stream.remember_key(key, digest, receipt)

    # Upkeep

    def _probe(self, transaction: Transaction) -> None:
        transaction.connection.execute(
            "INSERT OR REPLACE INTO meta (name, value) VALUES ('probe', ?)", (transaction.now_ms,)
        )

    def _store_seen_places(self, transaction: Transaction) -> None:
        if not self._unstored_seen:
            return
        with self._step():
            seen = dict(self._unstored_seen)
        transaction.connection.executemany(
            "UPDATE logs SET seen_epoch = ?, seen_seq = ? WHERE log = ?",
            [(*place, stream.number) for stream, place in seen.items()],
        )
        transaction.then(lambda: self._note_seen_stored(seen))

    def _note_seen_stored(self, stored: dict[SqliteStream, Position]) -> None:
        for stream, place in stored.items():
            if self._unstored_seen.get(stream) == place:
                del self._unstored_seen[stream]

    def _upkeep(self, *, is_idle: bool) -> float | None:
        with errors_of(self.path):
            self._trim_touched()
            if self._is_scrub_due or self._wal_growth > (0 if is_idle else _CHECKPOINT_BYTES):
                self._checkpoint()
        return _IDLE_SECONDS if self._wal_growth else None

    def _trim_touched(self) -> None:
        touched, self._touched = self._touched, set()
        over = [stream for stream in touched if stream.is_trim_due]
        if not over:
            return
        try:
            self._trim(over)
        except RecordCorrupt:
            for stream in over:
                try:
                    self._trim([stream])
                except RecordCorrupt as error:
                    logger.error("%s of %r cannot be trimmed: %s", self.url, stream.log_id, error)  # noqa: TRY400 - the error says all
                    stream.trim_later(self._retention)

    def _trim(self, streams: list[SqliteStream]) -> None:
        with self._transaction() as transaction:
            for stream in streams:
                keeping.trim(transaction, stream, self._retention)
        self._finish(transaction)
        for stream in streams:
            stream.trim_later(self._retention)

    def _checkpoint(self) -> None:
        """Write the write-ahead log back; it is emptied where that must or should be."""
        wal = self.path.with_name(self.path.name + "-wal")
        is_emptied = self._is_scrub_due or wal.stat().st_size > _WAL_LIMIT_BYTES
        mode = "TRUNCATE" if is_emptied else "PASSIVE"
        is_busy = self._writing.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0]
        if not is_busy:
            self._is_scrub_due = False
            self._wal_growth = 0

    def _sweep(self, transaction: Transaction) -> None:
        """Do a slice of the upkeep that nothing else causes."""
        connection = transaction.connection
        commands.expire(connection, self._clock())
        keeping.expire_keys(transaction)
        self._swept = keeping.trim_old(
            transaction, self._loaded_within, self._retention, after=self._swept
        )
        keeping.compact_runs(transaction, self._loaded_within, _COMPACT_STEPS)

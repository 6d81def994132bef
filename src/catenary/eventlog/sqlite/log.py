"""
``sqlite:///``: event logs in one file.

One process holds the file, one of its threads writes it, in groups; reading
happens on other threads, in short transactions. What an acknowledged event
survives is the URL's choice: ``durability=power`` (the default; a flush a
group) or ``process`` (the system's crash may take the last events).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec

from catenary.errors import LogUnavailable
from catenary.eventlog.base import PAGE_BYTES, PAGE_EVENTS
from catenary.eventlog.model import CancelOutcome, Claim, Durability, Page, Retention, RunInfo
from catenary.eventlog.sqlite import commands, keeping
from catenary.eventlog.sqlite.folding import fold_run
from catenary.eventlog.sqlite.reading import locate, read_page
from catenary.eventlog.sqlite.runs import has_run, run_infos
from catenary.eventlog.sqlite.state import SqliteStream, find_log
from catenary.eventlog.sqlite.transaction import Transaction
from catenary.eventlog.sqlite.writer import PATIENCE, SqliteWriter
from catenary.eventlog.stream import HeldRun, Stream, Watcher
from catenary.fold import RunState
from catenary.position import Position

P = ParamSpec("P")
T = TypeVar("T")


class SqliteLog(SqliteWriter):
    """
    Event logs in a SQLite file.

    Args:
        path: The file; it and its directory must be writable, on a local disk.
        patience: How long opening waits for another process to let the file go, in seconds.
        limits: ``log_intake_bytes``, ``intake_bytes``, ``log_reserve_bytes``, ``reserve_bytes``.
    """

    def __init__(
        self,
        path: Path,
        *,
        url: str | None = None,
        durability: Durability = Durability.POWER,
        retention: Retention | None = None,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.time,
        **limits: int,
    ) -> None:
        super().__init__(
            path,
            url=url or f"sqlite:///{path}",
            durability=durability,
            retention=retention,
            patience=patience,
            clock=clock,
            **limits,
        )

    # Reading

    async def _read(
        self,
        read: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        await self._is_open()
        readers = self._readers
        if readers is None:
            raise LogUnavailable(f"{self.path} was closed meanwhile")
        return await readers.run(read, *args, **kwargs)

    async def _loaded(self, log_id: str) -> SqliteStream:
        """Return a stream that is loaded; a new log gets its first term."""
        stream = self.stream(log_id)
        if not stream.is_loaded:
            stored = await self._read(find_log, log_id)
            if stored is None:
                await self._do(lambda _: None, stream)
            else:
                with self._step():
                    stream.show(stored)
        return stream

    async def watch(self, log_id: str, watcher: Watcher) -> Stream:
        """Begin to wake ``watcher``."""
        stream = await self._loaded(log_id)
        with self._step():
            stream.add_watcher(watcher)
            self._busy[log_id] = stream
        return stream

    async def head(self, log_id: str) -> Position:
        """Return the head."""
        return (await self._loaded(log_id)).position

    async def locate(self, log_id: str, after: str) -> Position:
        """Turn a keyword or a position's text into a place."""
        stream = await self._loaded(log_id)
        place = await self._read(locate, stream.number, after)
        if place is not None:
            return place
        lost = Position.parse(after)

        def begin_term(transaction: Transaction) -> None:
            if transaction.state(stream).terms.is_future(lost):
                self._begin_term(transaction, stream)

        await self._do(begin_term, stream)
        return lost

    async def read(
        self,
        log_id: str,
        after: Position,
        *,
        limit: int = PAGE_EVENTS,
        limit_bytes: int = PAGE_BYTES,
        thread_ids: Collection[str] | None = None,
        run_id: str | None = None,
    ) -> Page:
        """Return the next page after a place."""
        stream = await self._loaded(log_id)
        return await self._read(
            read_page,
            stream.number,
            after,
            limit=limit,
            limit_bytes=limit_bytes,
            thread_ids=thread_ids,
            run_id=run_id,
        )

    # Runs

    async def _infos(self, condition: str, *values: Any) -> list[RunInfo]:
        found = await self._read(lambda connection: list(run_infos(connection, condition, values)))
        with self._step():
            return [self._as_held(info) for info in found]

    def _as_held(self, info: RunInfo) -> RunInfo:
        """Return what the tables say with what this process knows better."""
        stream = self._streams.get(info.log_id)
        run = stream.runs.get(info.run_id) if stream is not None and info.is_open else None
        if run is None or run.last_seq <= info.last_seq:
            return info
        return msgspec.structs.replace(info, last_seq=run.last_seq, last_at=run.last_at)

    async def runs(
        self,
        log_id: str,
        *,
        thread_id: str | None = None,
        only_open: bool = False,
    ) -> list[RunInfo]:
        """Return the runs of a log, oldest first."""
        stream = await self._loaded(log_id)
        return await self._infos(
            "log = ? AND (? IS NULL OR thread_id = ?) AND (is_open OR NOT ?) ORDER BY first_seq",
            stream.number,
            thread_id,
            thread_id,
            only_open,
        )

    def folded(self, stream: Stream, run: HeldRun) -> RunState:
        """Return a run folded so far."""
        assert isinstance(stream, SqliteStream)
        with self._step():
            waiting = [entry for entry in stream.uncommitted() if entry.run_id == run.run_id]
            head = stream.position
        readers = self._readers
        if readers is None or not run.first_seq:
            return fold_run(None, stream, run, head, waiting)
        return readers.run_here(fold_run, stream, run, head, waiting)

    def knows_run(self, stream: Stream, run_id: str) -> bool:
        """Return whether a run was ever begun; of a file not yet open only this process's."""
        readers = self._readers
        if run_id in stream.runs or readers is None:
            return run_id in stream.runs
        return readers.run_here(has_run, stream.log_id, run_id)

    async def find_run(self, run_id: str) -> list[RunInfo]:
        """Return the runs with this id."""
        return await self._infos("run_id = ? ORDER BY started_at", run_id)

    async def open_runs(self) -> list[RunInfo]:
        """Return every open run."""
        return await self._infos("is_open ORDER BY started_at")

    async def unreported_runs(self, limit: int) -> list[RunInfo]:
        """Return ended runs that nobody was told of."""
        return await self._infos(
            "end_type IS NOT NULL AND NOT is_reported ORDER BY last_at, last_seq LIMIT ?", limit
        )

    async def mark_reported(self, log_id: str, run_id: str) -> None:
        """Record that the application was told."""
        stream = await self._loaded(log_id)
        await self._do(
            lambda transaction: transaction.connection.execute(
                "UPDATE runs SET is_reported = 1 WHERE log = ? AND run_id = ?",
                (stream.number, run_id),
            ),
            stream,
        )

    async def _store_cancel(
        self,
        log_id: str,
        run_id: str,
        reason: str | None,
        by: str | None,
    ) -> tuple[CancelOutcome, list[Callable[[], None]]]:
        stream = await self._loaded(log_id)
        callbacks: list[Callable[[], None]] = []

        def tell(at: int) -> None:
            run = stream.runs.get(run_id)
            if run is not None:
                callbacks.extend(stream.cancel(run, at, reason, by))

        def store(transaction: Transaction) -> CancelOutcome:
            row = transaction.connection.execute(
                "SELECT is_open FROM runs WHERE log = ? AND run_id = ?", (stream.number, run_id)
            ).fetchone()
            if row is None:
                return CancelOutcome.NOT_FOUND
            if not row[0]:
                return CancelOutcome.ALREADY_ENDED
            at = transaction.now_ms
            transaction.connection.execute(
                "WITH RECURSIVE family(run_id) AS (VALUES (:run) UNION "
                "SELECT runs.run_id FROM runs JOIN family ON parent_run_id = family.run_id "
                "WHERE log = :log AND is_open) "
                "UPDATE runs SET cancel_requested_at = :at, cancel_reason = :reason, "
                "cancel_by = :by WHERE log = :log AND run_id IN (SELECT run_id FROM family) "
                "AND cancel_requested_at IS NULL",
                {"at": at, "reason": reason, "by": by, "log": stream.number, "run": run_id},
            )
            transaction.then(lambda: tell(at))
            return CancelOutcome.STORED

        outcome = await self._do(store, stream)
        return outcome, callbacks

    # Commands, tickets, what was seen

    async def claim_command(self, log_id: str, command_id: str, digest: bytes) -> Claim:
        """Claim a message, once."""
        stream = await self._loaded(log_id)
        return await self._do(
            lambda transaction: commands.claim(
                transaction.connection,
                stream.number,
                command_id,
                digest,
                holder=self.holder,
                now=self._clock(),
            ),
            stream,
        )

    async def reclaim_command(self, log_id: str, command_id: str) -> None:
        """Claim an interrupted message again."""
        stream = await self._loaded(log_id)
        await self._do(
            lambda transaction: commands.reclaim(
                transaction.connection, stream.number, command_id, holder=self.holder
            ),
            stream,
        )

    async def finish_command(self, log_id: str, command_id: str, reply: bytes) -> None:
        """Store the reply."""
        stream = await self._loaded(log_id)
        await self._do(
            lambda transaction: commands.finish(
                transaction.connection, stream.number, command_id, reply
            ),
            stream,
        )

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value."""
        await self._do(
            lambda transaction: commands.put(
                transaction.connection, key, value, self._clock() + ttl
            )
        )

    async def get(self, key: str) -> bytes | None:
        """Return a kept value."""
        return await self._read(commands.get, key, self._clock())

    async def take(self, key: str) -> bytes | None:
        """Return a kept value, once."""
        return await self._do(
            lambda transaction: commands.take(transaction.connection, key, self._clock())
        )

    async def _store_seen(self, log_id: str, place: Position) -> None:
        # It is written with the next commit: a crash may make it a little older, never wrong.
        stream = await self._loaded(log_id)
        with self._step():
            if place.epoch != stream.epoch or place.seq > stream.head:
                return
            if stream.seen is None or stream.seen.epoch != place.epoch or place > stream.seen:
                stream.seen = place
                self._unstored_seen[stream] = place

    async def seen(self, log_id: str) -> Position | None:
        """Return the furthest acknowledged place."""
        stream = await self._loaded(log_id)
        with self._step():
            seen = stream.seen
            return seen if seen is not None and seen.epoch == stream.epoch else None

    # Keeping

    async def erase(self, log_id: str, thread_id: str | None = None) -> int:
        """Erase a thread, or all; the file and its write-ahead log keep none of it."""
        stream = await self._loaded(log_id)

        def erase(transaction: Transaction) -> int:
            transaction.then(lambda: self._forget_erased(stream, thread_id))
            if thread_id is None:
                return keeping.erase_all(transaction, stream)
            return keeping.erase_thread(transaction, stream, thread_id)

        count = await self._do(erase, stream)
        # The writer scrubs between the group of the erasure and that of this.
        await self._do(lambda _: None)
        return count

    def _forget_erased(self, stream: SqliteStream, thread_id: str | None) -> None:
        self._is_scrub_due = True
        for run in stream.runs.values():
            # One whose start still waits was not erased: it begins afterwards.
            if run.first_seq and (thread_id is None or run.thread_id == thread_id):
                run.close("its events were erased")
                stream.open_runs.discard(run.run_id)
        if thread_id is None:
            stream.keys.clear()
        if stream.tail is not None:
            stream.tail.clear()

    async def new_term(self, log_id: str | None = None) -> int:
        """Begin a new term for one log, or all."""
        streams = [await self._loaded(log_id)] if log_id is not None else []

        def begin(transaction: Transaction) -> int:
            chosen = streams or [
                self._loaded_within(transaction.connection, other) for other in self._all_log_ids()
            ]
            for stream in chosen:
                self._begin_term(transaction, stream)
            return len(chosen)

        return await self._do(begin, *streams)

    async def sweep(self) -> None:
        """Do the upkeep that is due, a slice of it."""
        await self._is_open()
        self._let_go()
        self.expire_leases()
        await self._do(self._sweep)

    def statistics(self) -> dict[str, Any]:
        """Return counters and sizes, of the logs that this process holds and of the file."""
        streams = [
            stream for stream in list(self._streams.values()) if isinstance(stream, SqliteStream)
        ]
        return super().statistics() | {
            "events_held": sum(stream.state.events for stream in streams),
            "bytes_held": sum(stream.state.bytes for stream in streams),
        }

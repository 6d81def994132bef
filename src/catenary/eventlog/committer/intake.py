"""
The intake of logs with a store: what is accepted waits here until it is committed.

It is also where a commit becomes known: to readers, to receipts, to runs.
"""

from __future__ import annotations

import abc
import time
import weakref
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from catenary.errors import LogFull, RunClosed
from catenary.eventlog.base import EventLog
from catenary.eventlog.committer.group import Batch, Group, Outcome, Work
from catenary.eventlog.committer.stream import CommitStream, intake_size
from catenary.eventlog.entry import Entry
from catenary.eventlog.receipt import Receipt, wake
from catenary.eventlog.stream import HeldRun, Stream
from catenary.grammar import RUN_END_STEPS, Step
from catenary.record import Record
from catenary.wires.native import event_of

LOG_INTAKE_BYTES = 8 * 1024 * 1024
INTAKE_BYTES = 64 * 1024 * 1024
LOG_RESERVE_BYTES = 64 * 1024
RESERVE_BYTES = 1024 * 1024
"""Room that is kept for what closes tools and runs."""

_SLICE = 200
"""How many records are published before emitters get the lock again."""

_RESERVED = RUN_END_STEPS | {Step.TOOL_END}


class IntakeLog(EventLog):
    """An event log that takes entries in order, bounded in bytes, for a writer to commit."""

    def __init__(
        self,
        *,
        url: str,
        clock: Callable[[], float] = time.time,
        log_intake_bytes: int = LOG_INTAKE_BYTES,
        intake_bytes: int = INTAKE_BYTES,
        log_reserve_bytes: int = LOG_RESERVE_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        super().__init__(clock=clock)
        self.url = url
        self._limits = (log_intake_bytes, intake_bytes)
        self._ordinary_limits = (log_intake_bytes - log_reserve_bytes, intake_bytes - reserve_bytes)
        self._intake_bytes = 0
        self._streams: weakref.WeakValueDictionary[str, CommitStream] = (
            weakref.WeakValueDictionary()
        )
        self._busy: dict[str, CommitStream] = {}
        self._ready: list[CommitStream] = []
        self._works: list[Work[Any]] = []
        self._batch_number = 0
        self._waiting_since = 0.0
        self._group_since = 0.0
        self._problem: str | None = None

    # The intake

    def _new_stream(self, log_id: str) -> CommitStream:
        return CommitStream(log_id)

    def stream(self, log_id: str) -> CommitStream:
        """Return the stream of a log."""
        stream = self._streams.get(log_id)
        if stream is None:
            with self._lock:
                stream = self._streams.get(log_id)
                if stream is None:
                    stream = self._new_stream(log_id)
                    self._streams[log_id] = stream
        return stream

    def streams(self) -> list[Stream]:
        """Return the streams that somebody here refers to."""
        return list(self._streams.values())

    def _held_streams(self) -> list[Stream]:
        return list(self._busy.values())

    def fullest_intake(self) -> tuple[str, float]:
        """Return which intake is used the most, and how far."""
        of_log, of_all = self._limits
        found = [
            (stream.log_id, stream.intake_bytes / of_log) for stream in list(self._busy.values())
        ]
        return max([("all logs", self._intake_bytes / of_all), *found], key=itemgetter(1))

    def _check_room(self, stream: Stream, entries: Sequence[Entry]) -> None:
        assert isinstance(stream, CommitStream)
        size = sum(map(intake_size, entries))
        of_log, of_all = self._ordinary_limits
        if stream.intake_bytes + size > of_log or self._intake_bytes + size > of_all:
            if all(entry.step in _RESERVED for entry in entries):
                of_log, of_all = self._limits
            if stream.intake_bytes + size > of_log:
                raise LogFull(stream.log_id, stream.intake_bytes, of_log, self._problem)
            if self._intake_bytes + size > of_all:
                raise LogFull("all logs", self._intake_bytes, of_all, self._problem)
        self._need_writer()

    def _accept(self, stream: Stream, entry: Entry, run: HeldRun | None) -> None:
        assert isinstance(stream, CommitStream)
        self._intake_bytes += stream.put(entry)
        if not stream.is_queued:
            if not self._ready:
                self._waiting_since = time.perf_counter()
            stream.is_queued = True
            self._ready.append(stream)
            self._busy[stream.log_id] = stream
        self._ring()

    @abc.abstractmethod
    def _need_writer(self) -> None:
        """See to it that there is a writer."""

    @abc.abstractmethod
    def _ring(self) -> None:
        """Wake the writer, if it is idle."""

    def _take(self) -> Group:
        """Return all that waits, for the writer."""
        batches = []
        self._group_since = self._waiting_since
        for stream in self._ready:
            stream.is_queued = False
            self._batch_number += 1
            batches.append(Batch(stream, *stream.take(), self._batch_number))
        self._ready = []
        works, self._works = self._works, []
        return Group(batches, works)

    # After the commit

    def _settle(self, group: Group, outcome: Outcome) -> None:
        """Commit, then everyone: records, readers, receipts, then whoever waited."""
        receipts: list[Receipt] = []
        for begin in range(0, len(outcome.appended), _SLICE):
            with self._step():
                for stream, entry, record in outcome.appended[begin : begin + _SLICE]:
                    self._publish(stream, entry, record)
                    if entry.receipt._waiters is not None:
                        receipts.append(entry.receipt)
            if begin + _SLICE < len(outcome.appended):
                time.sleep(0)  # the lock is not fair: let those who wait for it have it
        with self._step():
            for _, entry, position in outcome.repeated:
                entry.receipt.commit(*position)
                receipts.append(entry.receipt)
            for batch in group.batches:
                self._release(batch)
            for stream, entry, error in outcome.refused:
                self._refuse_entry(stream, entry, error)
                receipts.append(entry.receipt)
            for effect in outcome.effects:
                effect()
        wake(receipts)
        if group.batches:
            self.append_seconds.observe(time.perf_counter() - self._group_since)
        for work, result in outcome.results:
            work.future.set_result(result)

    def _publish(self, stream: CommitStream, entry: Entry, record: Record) -> None:
        stream.publish(record)
        self.events_appended += 1
        entry.receipt.commit(record.epoch, record.seq)
        run = stream.runs.get(entry.run_id) if entry.run_id is not None else None
        if run is not None:
            run.last_at, run.last_seq = record.at, record.seq
            if entry.step is Step.START:
                run.begin(event_of(record))
                stream.open_runs.add(run.run_id)
        if entry.step in RUN_END_STEPS:
            self._note_end(stream, record, run)

    def _note_end(self, stream: CommitStream, record: Record, run: HeldRun | None) -> None:
        if run is not None:
            run.end_type = record.type
            stream.open_runs.discard(run.run_id)
            stream.forget_ended_runs()
        if self.run_ended is not None:
            self.run_ended()

    def _release(self, batch: Batch) -> None:
        stream = batch.stream
        stream.release(batch.size_bytes)
        self._intake_bytes -= batch.size_bytes
        stream.refused.clear()
        if not stream.is_busy:
            self._busy.pop(stream.log_id, None)

    def _let_go(self) -> None:
        """Hold no longer what nobody here uses."""
        with self._step():
            for stream in list(self._busy.values()):
                if not stream.is_busy:
                    del self._busy[stream.log_id]

    def _refuse_entry(self, stream: CommitStream, entry: Entry, error: Exception) -> None:
        entry.receipt.fail(error)
        known = stream.keys.get(entry.key) if entry.key is not None else None
        if known is not None and known[1] is entry.receipt:
            # Nothing was appended under this key, so it may be tried again.
            del stream.keys[str(entry.key)]
        run = stream.runs.get(entry.run_id) if entry.run_id is not None else None
        if run is None:
            return
        if entry.step is Step.START and isinstance(error, RunClosed):
            run.close(error.reason)
            stream.refused[run.run_id] = error
        elif run.is_open and run.failure is None:
            run.failure = entry.receipt

    def _refuse(self, batches: Sequence[Batch], error: Exception) -> None:
        receipts = []
        with self._step():
            for batch in batches:
                self._release(batch)
                for entry in batch.entries:
                    if not entry.receipt.is_settled:
                        self._refuse_entry(batch.stream, entry, error)
                        receipts.append(entry.receipt)
        wake(receipts)

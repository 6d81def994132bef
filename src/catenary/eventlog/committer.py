"""
Logs with a store behind them: the intake, and the one thread that writes.

A subclass brings the store: how to open it, commit a group, and close it. All
of that runs on the writer's thread; nobody else writes.
"""

from __future__ import annotations

import abc
import asyncio
import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from random import SystemRandom
from typing import Any, TypeVar

from catenary.errors import LogError, LogFull, LogUnavailable, RunClosed
from catenary.eventlog.base import EventLog
from catenary.eventlog.committer_group import Batch, Group, Outcome, Work
from catenary.eventlog.committer_life import Life
from catenary.eventlog.committer_stream import CommitStream, intake_size
from catenary.eventlog.entry import Entry
from catenary.eventlog.receipt import Receipt, wake
from catenary.eventlog.stream import HeldRun, Stream
from catenary.grammar import Step
from catenary.record import Record
from catenary.wires.native import event_of

LOG_INTAKE_BYTES = 8 * 1024 * 1024
INTAKE_BYTES = 64 * 1024 * 1024
LOG_RESERVE_BYTES = 64 * 1024
RESERVE_BYTES = 1024 * 1024
"""Room that is kept for what closes tools and runs."""

BACKOFF_LIMIT = 1.0
STOP_TIMEOUT = 10.0
EXIT_TIMEOUT = 5.0

_SLICE = 200
"""How many records are published before emitters get the lock again."""

RUN_END_STEPS = frozenset({Step.COMPLETE, Step.FAIL, Step.CANCEL})
_RESERVED = RUN_END_STEPS | {Step.TOOL_END}

_random = SystemRandom()
logger = logging.getLogger("catenary.eventlog")
T = TypeVar("T")


class CommittingLog(EventLog):
    """
    An event log that commits in groups, on a thread of its own.

    What is accepted waits in the intake, in order. The writer takes all that
    waits as one group, so a log has at most one batch under way; a group that
    the store could not commit is tried again whole before anything later.
    The writer starts with the first use and opens the store itself: appending
    needs neither ``start`` nor a loop.
    """

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
        self._problem: str | None = None
        self._life: Life | None = None
        self._ending: Life | None = None
        self._starts = 0

    # The store, on the writer's thread

    @abc.abstractmethod
    def _open_store(self) -> None:
        """Open the store. Raises ``LogUnavailable`` (tried again) or ``ConfigError``."""

    @abc.abstractmethod
    def _close_store(self) -> None:
        """Close the store; it may not be open."""

    @abc.abstractmethod
    def _commit(self, group: Group) -> Outcome:
        """
        Commit a group, all or nothing.

        Raises:
            LogError: The store cannot now; the group will be tried again.
            Exception: Some part cannot be stored; the parts will be tried alone.
        """

    @abc.abstractmethod
    def _probe(self, transaction: Any) -> None:
        """Write something small, to learn whether the store takes it again."""

    @abc.abstractmethod
    def _upkeep(self, *, is_idle: bool) -> float | None:
        """
        Do what is due between two groups, within milliseconds; may raise ``LogError``.

        ``is_idle`` says that nothing waits. Returns after how many seconds of idleness more is to do; None: nothing is.
        """

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

    def _held_streams(self) -> list[Stream]:
        return list(self._busy.values())

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
        if self._life is None:
            self._living()

    def _accept(self, stream: Stream, entry: Entry, run: HeldRun | None) -> None:
        assert isinstance(stream, CommitStream)
        self._intake_bytes += stream.put(entry)
        if not stream.is_queued:
            stream.is_queued = True
            self._ready.append(stream)
            self._busy[stream.log_id] = stream
        self._ring()

    def _ring(self) -> None:
        life = self._life
        if life is not None and life.is_idle:
            life.is_idle = False
            life.bell.set()

    async def _do(self, act: Callable[[Any], T], *streams: CommitStream) -> T:
        """
        Let the writer do something in its next transaction; returns after the commit.

        Raises:
            LogUnavailable: The store cannot now; whether it was done is not known.
        """
        work = Work(act, streams)
        with self._step():
            self._living()
            self._works.append(work)
            self._ring()
        return await asyncio.wrap_future(work.future)

    # The writer

    def _living(self) -> Life:
        life = self._life
        if life is None:
            life = Life(self._run, self._ending)
            life.start()
            self._life = self._ending = life
            _living_logs.add(self)
        return life

    def _run(self, life: Life) -> None:
        try:
            if self._open_until_done(life):
                while group := self._next(life):
                    self._commit_until_done(group, life)
                    self._keep_up(life, is_idle=False)
        except BaseException as error:
            logger.critical("the writer of %s failed", self.url, exc_info=True)
            self._abandon_all(life, LogUnavailable(f"the writer of {self.url} failed: {error!r}"))
        finally:
            self._close_store()
            life.closed.set_result(None)

    def _open_until_done(self, life: Life) -> bool:
        while True:
            try:
                self._open_store()
            except Exception as error:  # what start() raises; otherwise tried again
                self._note_problem(error)
                self._close_store()
                if not self._waits_to_open(life, error):
                    return False
            else:
                self._note_problem(None)
                life.note_open()
                return True

    def _waits_to_open(self, life: Life, error: Exception) -> bool:
        with self._step():
            works, self._works = self._works, []
            is_over = not self._ready or life.is_stopping
            if is_over:
                self._life = None
        life.note_attempt_failed(error)
        self._fail_works(works, error)
        if is_over:
            self._abandon_all(life, error)
        else:
            life.wait_before_retry(_random.uniform(0, BACKOFF_LIMIT))
        return not is_over

    def _next(self, life: Life) -> Group | None:
        """Wait for something to commit; None when the writer is to end."""
        while True:
            with self._step():
                if self._ready or self._works:
                    return self._take()
                if life.is_stopping:
                    self._life = None
                    return None
                life.is_idle = True
            if not life.bell.wait(life.idle_timeout):
                self._keep_up(life, is_idle=True)
            life.bell.clear()

    def _take(self) -> Group:
        batches = []
        for stream in self._ready:
            stream.is_queued = False
            self._batch_number += 1
            batches.append(Batch(stream, *stream.take(), self._batch_number))
        self._ready = []
        works, self._works = self._works, []
        return Group(batches, works)

    def _commit_until_done(self, group: Group, life: Life) -> None:
        attempt = 0
        while group.batches or group.works:
            try:
                outcome = self._commit(group)
            except LogError as error:
                self._note_problem(error)
                self._fail_works(group.works, error)
                if life.is_overdue:
                    self._refuse(group.batches, error)
                    return
                attempt += 1
                if group.batches:
                    life.wait_before_retry(
                        _random.uniform(0, min(BACKOFF_LIMIT, 0.01 * 2**attempt))
                    )
                group = Group(group.batches, self._take_works() if group.batches else [])
            except Exception as error:  # what the store says of content
                self._commit_apart(group, life, error)
                return
            else:
                self._note_problem(None)
                self._settle(group, outcome)
                return

    def _take_works(self) -> list[Work[Any]]:
        with self._step():
            works, self._works = self._works, []
            return works

    def _commit_apart(self, group: Group, life: Life, error: Exception) -> None:
        """Find the part that the store refuses; the others are committed."""
        parts = [
            *(Group([batch], []) for batch in group.batches),
            *(Group([], [work]) for work in group.works),
        ]
        if len(parts) == 1:
            self._fail_works(group.works, error)
            self._refuse(group.batches, error)
            return
        for part in parts:
            self._commit_until_done(part, life)

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

    def _refuse_entry(self, stream: CommitStream, entry: Entry, error: Exception) -> None:
        entry.receipt.fail(error)
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
                    self._refuse_entry(batch.stream, entry, error)
                    receipts.append(entry.receipt)
        wake(receipts)

    def _fail_works(self, works: Sequence[Work[Any]], error: Exception) -> None:
        for work in works:
            work.future.set_exception(error)

    def _abandon_all(self, life: Life, error: Exception) -> None:
        with self._step():
            if self._life is life:
                self._life = None
            group = self._take()
        life.note_attempt_failed(error)
        self._fail_works(group.works, error)
        self._refuse(group.batches, error)

    def _keep_up(self, life: Life, *, is_idle: bool) -> None:
        try:
            if self._problem is not None:
                self._commit_until_done(Group([], [Work(self._probe)]), life)
            life.idle_timeout = self._upkeep(is_idle=is_idle)
        except LogError as error:
            self._note_problem(error)
        if self._problem is not None:
            life.idle_timeout = BACKOFF_LIMIT

    def _note_problem(self, error: Exception | None) -> None:
        former, self._problem = self._problem, None if error is None else str(error)
        if error is not None and former is None:
            logger.error("%s does not commit, events wait: %s", self.url, error)
        elif error is None and former is not None:
            logger.warning("%s commits again", self.url)

    # Life

    async def start(self) -> None:
        """Open the store. Each ``start`` is undone by one ``stop``."""
        with self._step():
            attempt = self._living().opened
            self._starts += 1
        try:
            await asyncio.wrap_future(attempt)
        except BaseException:
            self._starts -= 1
            raise

    async def _is_open(self) -> None:
        """Wait until the store is open; raises what ``start`` raises."""
        life = self._life
        if life is None or not life.is_open:
            with self._step():
                attempt = self._living().opened
            await asyncio.wrap_future(attempt)

    async def stop(self) -> None:
        """
        Commit what the intake holds, then close the store.

        With several starts the last stop does it. What the store did not take
        within 10 s fails with ``LogUnavailable``. A later use opens it again.
        """
        with self._step():
            self._starts = max(0, self._starts - 1)
            life = self._life
            if self._starts or life is None:
                return
            life.stop(STOP_TIMEOUT)
        await asyncio.wrap_future(life.closed)

    def problem(self) -> str | None:
        """Return why the log does not commit now."""
        return self._problem

    def statistics(self) -> dict[str, Any]:
        """Return counters and sizes, of the logs that this process holds."""
        streams = list(self._streams.values())
        return {
            "streams": len(streams),
            "tail_bytes": sum(stream.tail.bytes_held for stream in streams if stream.tail),
            "intake_bytes": self._intake_bytes,
            "open_runs": sum(len(stream.open_runs) for stream in streams),
        }


_living_logs: weakref.WeakSet[CommittingLog] = weakref.WeakSet()


@atexit.register
def _commit_at_exit() -> None:
    """Commit what was accepted, at the process's normal end; bounded in time."""
    deadline = time.monotonic() + EXIT_TIMEOUT
    lives = [(log, log._life) for log in list(_living_logs)]
    for _, life in lives:
        if life is not None:
            life.stop(EXIT_TIMEOUT)
    for log, life in lives:
        if life is not None and not life.wait_closed(deadline - time.monotonic()):
            logger.error("%s was not closed within %s s at exit", log.url, EXIT_TIMEOUT)

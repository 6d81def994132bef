"""
The contract of an event log.

A log keeps, for every ``log_id`` (by default a user), one append-only sequence
of events, numbered densely within an epoch. It is the only queue between
agents and their readers. What every log guarantees:

- **Accept or raise.** :meth:`EventLog.append` accepts an event or raises, at
  once, from any thread; accepted events keep the order in which they were
  accepted. The grammar of a run is checked in the same step.
- **Commit, then everyone.** An event gets its number, its frame and its
  readers only after the store committed it; then its receipt is settled.
- **Whole or told.** :meth:`EventLog.read` returns records that follow the
  place asked for without a hole, or the gap before them.
- **Watch.** Watchers are woken after a commit. A wake-up may be lost; the
  records may not.
"""

from __future__ import annotations

import abc
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from catenary.errors import LifecycleError, UsageError
from catenary.eventlog.entry import Entry
from catenary.eventlog.model import CancelOutcome, Claim, Durability, Page, RunInfo
from catenary.eventlog.overdue import close_overdue_runs
from catenary.eventlog.receipt import Receipt, wake
from catenary.eventlog.seen import SeenWatch
from catenary.eventlog.stepping import Stepping
from catenary.eventlog.stream import HeldRun, Stream, Watcher
from catenary.fold import RunState
from catenary.grammar import OpenTool, Step
from catenary.position import Position

PAGE_EVENTS = 500
PAGE_BYTES = 256 * 1024


class EventLog(Stepping):
    """
    One store of event logs. Thread-safe unless a method says otherwise.

    Coroutine methods may be awaited on any loop. ``append`` and ``cancel``
    need no loop.
    """

    url: str
    durability: Durability

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._late: deque[tuple[Stream, Sequence[Entry]]] = deque()
        self.holder = f"{secrets.token_hex(6)}"
        """The name of this process as a producer, random for each opened log."""
        self.run_ended: Callable[[], None] | None = None
        """Called within the commit of a run's end; as short as a watcher's ``wake``."""
        self.events_appended = 0
        self._seen_watch = SeenWatch()

    # Appending

    @abc.abstractmethod
    def stream(self, log_id: str) -> Stream:
        """Return the one stream of a log in this process; it need not be loaded."""

    def append(self, stream: Stream, entry: Entry) -> Receipt:
        """
        Accept one event, or raise and leave everything as it was.

        Within a finalizer or a signal handler that interrupts this thread's own
        step the event is accepted after that step, and a refusal comes through
        the receipt.

        Raises:
            LifecycleError, RunClosed: The grammar of the run forbids it.
            LogFull: The intake holds all it may.
            UsageError: The idempotency key was used for another event.
        """
        with self._lock:
            if self._is_stepping:
                self._late.append((stream, (entry,)))
                return entry.receipt
            self._is_stepping = True
            try:
                if entry.key is not None:
                    return self._accept_all(stream, (entry,))[0]
                self._check_room(stream, (entry,))
                self._accept(stream, entry, self._admit(stream, entry))
                return entry.receipt
            finally:
                if self._late:
                    self._accept_late()
                self._is_stepping = False

    def append_all(self, stream: Stream, entries: Sequence[Entry]) -> list[Receipt]:
        """Accept several events of one log in one step: all, or none. Raises as ``append``."""
        with self._lock:
            if self._is_stepping:
                self._late.append((stream, entries))
                return [entry.receipt for entry in entries]
            with self._step():
                return self._accept_all(stream, entries)

    def end_run(
        self,
        stream: Stream,
        run_id: str,
        entries_for: Callable[[dict[str, OpenTool]], Sequence[Entry]],
    ) -> Receipt:
        """
        End a run in one step with whatever closes its open tools.

        ``entries_for`` gets the open tools (by ``tool_call_id``) and
        returns the entries, the end last. Raises as ``append``.
        """
        with self._lock:
            run = stream.runs.get(run_id)
            open_tools = dict(run.grammar.open_tools) if run is not None else {}
            return self.append_all(stream, entries_for(open_tools))[-1]

    def _accept_late(self) -> None:
        while self._late:
            stream, entries = self._late.popleft()
            # The calls that made them have returned: the receipts that they gave out tell.
            given = [entry.receipt for entry in entries]
            try:
                self._accept_all(stream, entries)
            except Exception as error:
                for receipt in given:
                    receipt.fail(error)
                wake(given)
            for entry, receipt in zip(entries, given, strict=True):
                if entry.receipt is not receipt:
                    entry.receipt.share(receipt)

    def _accept_all(self, stream: Stream, entries: Sequence[Entry]) -> list[Receipt]:
        new = [entry for entry in entries if not self._is_repeat(stream, entry)]
        before = [
            (run, run.grammar.snapshot())
            for run in {entry.run_id: stream.runs.get(entry.run_id or "") for entry in new}.values()
            if run is not None
        ]
        admitted: list[tuple[Entry, HeldRun | None]] = []
        try:
            self._check_room(stream, new)
            for entry in new:
                admitted.append((entry, self._admit(stream, entry)))  # noqa: PERF401 - undone below
        except BaseException:
            for _, run in admitted:
                if run is not None:
                    stream.runs.pop(run.run_id, None)
            for run, snapshot in before:
                stream.runs[run.run_id] = run
                run.grammar.restore(snapshot)
            raise
        for entry, run in admitted:
            if entry.key is not None:
                stream.remember_key(entry.key, entry.digest, entry.receipt)
            self._accept(stream, entry, run)
        return [entry.receipt for entry in entries]

    def _is_repeat(self, stream: Stream, entry: Entry) -> bool:
        known = stream.keys.get(entry.key) if entry.key is not None else None
        if known is None:
            return False
        if known[0] != entry.digest:
            raise UsageError(
                f"the idempotency key {entry.key!r} was used for another event of {stream.log_id!r}"
            )
        entry.receipt = known[1]
        return True

    def _admit(self, stream: Stream, entry: Entry) -> HeldRun | None:
        run_id = entry.run_id
        if run_id is None:
            return None
        run = stream.runs.get(run_id)
        if run is None:
            if entry.step is Step.ASIDE:
                return None
            if entry.step is not Step.START:
                raise LifecycleError(run_id, "it has not started: emit agent_started first")
            run = HeldRun(run_id, entry.thread_id)
            run.grammar.admit(entry.step)
            stream.runs[run_id] = run
            return run
        if run.failure is not None:
            failed = run.failure
            run.failure = None
            failed._outcome()
        run.grammar.admit(entry.step, entry.tool_call_id, entry.tool)
        return run

    @abc.abstractmethod
    def _check_room(self, stream: Stream, entries: Sequence[Entry]) -> None:
        """Raise ``LogFull`` unless the intake has room for all the entries."""

    @abc.abstractmethod
    def _accept(self, stream: Stream, entry: Entry, run: HeldRun | None) -> None:
        """Take one admitted entry, under the lock: commit it, or put it into the intake."""

    # Reading

    @abc.abstractmethod
    async def watch(self, log_id: str, watcher: Watcher) -> Stream:
        """Begin to wake ``watcher``; its stream's head is known when this returns."""

    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        """Stop to wake ``watcher``. Idempotent."""
        with self._lock:
            stream.remove_watcher(watcher)

    @abc.abstractmethod
    async def head(self, log_id: str) -> Position:
        """Return the place after the last committed event; creates the first term."""

    @abc.abstractmethod
    async def locate(self, log_id: str, after: str) -> Position:
        """
        Turn ``start``, ``open``, ``now`` or a position into a concrete place.

        A position beyond the head of the current term proves a loss: a new term
        begins at once. The gap, if any, is what the next ``read`` tells.

        Raises:
            UsageError: If it is none of these.
        """

    @abc.abstractmethod
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
        """
        Return the next page after a place: at most ``limit`` records and ``limit_bytes``.

        At least one record is returned where there is one. Merging is the wire's
        business; compacted ranges come as they are stored, cut to begin after ``after``.
        """

    # Runs

    @abc.abstractmethod
    async def runs(
        self,
        log_id: str,
        *,
        thread_id: str | None = None,
        only_open: bool = False,
    ) -> list[RunInfo]:
        """Return the runs that the log knows, oldest first."""

    @abc.abstractmethod
    def folded(self, stream: Stream, run: HeldRun) -> RunState:
        """
        Return a run of this process folded so far, with what the intake still holds.

        Called on any thread; it may block for the time of a read.
        """

    @abc.abstractmethod
    async def find_run(self, run_id: str) -> list[RunInfo]:
        """Return the runs with this id in any log: for operators, never for users."""

    @abc.abstractmethod
    async def open_runs(self) -> list[RunInfo]:
        """Return every open run of every log."""

    @abc.abstractmethod
    async def unreported_runs(self, limit: int) -> list[RunInfo]:
        """Return ended runs that ``mark_reported`` has not seen, oldest first."""

    @abc.abstractmethod
    async def mark_reported(self, log_id: str, run_id: str) -> None:
        """Record that the application has been told of a run's end."""

    async def request_cancel(
        self,
        log_id: str,
        run_id: str,
        *,
        reason: str | None = None,
        by: str | None = None,
    ) -> CancelOutcome:
        """Store a request to cancel a run and tell its holder."""
        outcome, callbacks = await self._store_cancel(log_id, run_id, reason, by)
        for callback in callbacks:
            callback()
        return outcome

    @abc.abstractmethod
    async def _store_cancel(
        self,
        log_id: str,
        run_id: str,
        reason: str | None,
        by: str | None,
    ) -> tuple[CancelOutcome, list[Callable[[], None]]]: ...

    # Commands, tickets, what was seen

    @abc.abstractmethod
    async def claim_command(self, log_id: str, command_id: str, digest: bytes) -> Claim:
        """Claim a client's message, once within 24 h or 1,000 ids a log."""

    @abc.abstractmethod
    async def reclaim_command(self, log_id: str, command_id: str) -> None:
        """Claim an interrupted message again, for a handler that may run twice."""

    @abc.abstractmethod
    async def finish_command(self, log_id: str, command_id: str, reply: bytes) -> None:
        """Store the reply of a claimed message."""

    @abc.abstractmethod
    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value for ``ttl`` seconds."""

    @abc.abstractmethod
    async def get(self, key: str) -> bytes | None:
        """Return a kept value."""

    @abc.abstractmethod
    async def take(self, key: str) -> bytes | None:
        """Return a kept value and remove it, atomically: one caller gets it."""

    async def note_seen(self, log_id: str, place: Position) -> None:
        """Record that a client of the user has handled all through ``place``."""
        await self._store_seen(log_id, place)
        self._seen_watch.tell(log_id, place)

    @abc.abstractmethod
    async def _store_seen(self, log_id: str, place: Position) -> None: ...

    async def wait_seen(self, log_id: str, place: Position, *, timeout: float | None) -> bool:
        """Wait until ``place`` was acknowledged; False after ``timeout`` seconds."""
        return await self._seen_watch.wait(self, log_id, place, timeout)

    @abc.abstractmethod
    async def seen(self, log_id: str) -> Position | None:
        """Return the furthest place that a client has acknowledged in the current term."""

    # Keeping

    @abc.abstractmethod
    def _held_streams(self) -> list[Stream]:
        """Return at least the streams with runs that this process holds open."""

    def expire_leases(self) -> None:
        """Close the runs whose lease is over, and those that go on 10 s after a cancel."""
        for stream in self._held_streams():
            close_overdue_runs(self, stream, int(self._clock() * 1000))

    @abc.abstractmethod
    async def erase(self, log_id: str, thread_id: str | None = None) -> int:
        """
        Erase what the log holds of a thread, or all of it; returns how many events.

        The numbers stay used: a thread's events become tombstones of type
        ``erased``; after erasing all, an ``erased`` event follows and readers
        behind it get a gap.
        """

    @abc.abstractmethod
    async def new_term(self, log_id: str | None = None) -> int:
        """Begin a new term for one log, or for all; returns how many. After a restore."""

    @abc.abstractmethod
    async def sweep(self) -> None:
        """Do the upkeep that is due: retention by age, compaction, expired keys. Cheap."""

    # Life

    @abc.abstractmethod
    async def start(self) -> None:
        """Open the store. Idempotent. Raises ``LogUnavailable`` or ``ConfigError``."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """Commit what the intake holds, then close the store. Idempotent."""

    @abc.abstractmethod
    def problem(self) -> str | None:
        """Return why the log does not commit now, for readiness; None if it does."""

    @abc.abstractmethod
    def statistics(self) -> dict[str, Any]:
        """Return counters and sizes: streams, events and bytes held, intake bytes, open runs."""

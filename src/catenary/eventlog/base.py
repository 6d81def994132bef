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
from collections.abc import Callable, Collection, Iterator
from typing import Any

from catenary.eventlog.accepting import Accepting
from catenary.eventlog.ends import RunEnds
from catenary.eventlog.handlings import Handlings
from catenary.eventlog.model import CancelOutcome, Claim, Durability, Page, RunInfo
from catenary.eventlog.nodes import Nodes
from catenary.eventlog.overdue import close_overdue_runs
from catenary.eventlog.seen import SeenWatch
from catenary.eventlog.stream import HeldRun, Stream, Watcher
from catenary.eventlog.urls import without_secrets
from catenary.events import AgentCancelled, AgentError
from catenary.fold import RunState
from catenary.observe.counters import Latencies
from catenary.position import Position

PAGE_EVENTS = 500
PAGE_BYTES = 256 * 1024


_SURVIVES = {
    Durability.MEMORY: "nothing, for this log is in memory",
    Durability.PROCESS: "the end of this process, but not a loss of power",
    Durability.POWER: "a loss of power",
}


class EventLog(Accepting):
    """
    One store of event logs. Thread-safe unless a method says otherwise.

    Coroutine methods may be awaited on any loop. ``append`` and ``cancel``
    need no loop.
    """

    url: str
    durability: Durability
    is_shared = False
    """Whether other processes may write it too."""
    required: Durability | None = None
    """What an acknowledged event must survive, at least; an opening below it fails."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self.holder = f"{secrets.token_hex(6)}"
        """The name of this process as a producer, random for each opened log."""
        self.ends = RunEnds()
        self.run_ended: Callable[[], None] | None = self.ends
        """Called within the commit of a run's end; as short as a watcher's ``wake``."""
        self.events_appended = 0
        self.append_seconds = Latencies()
        """From acceptance to commit: the longest wait of each group; nothing where none waits."""
        self.handlings = Handlings()
        """What this process does with the messages that it claimed."""
        self.nodes = Nodes()
        """The processes that share this log, and their users."""
        self._seen_watch = SeenWatch()

    def now_ms(self) -> int:
        """Return the time in ms since 1970 by the log's clock, which stamps whatever goes in."""
        return int(self._clock() * 1000)

    @property
    def shown_url(self) -> str:
        """The URL without the passwords in it, for errors and logs."""
        return without_secrets(self.url)

    @property
    def survives(self) -> str:
        """What an acknowledged event survives, in words."""
        return _SURVIVES[self.durability]

    # Reading

    @abc.abstractmethod
    async def watch(self, log_id: str, watcher: Watcher) -> Stream:
        """Begin to wake ``watcher``; its stream's head is known when this returns."""

    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        """Stop to wake ``watcher``. Idempotent."""
        with self._lock:
            stream.remove_watcher(watcher)

    def drop_tail(self, stream: Stream) -> None:
        """Drop the frames held in memory for a stream; its readers go to the log."""
        with self._lock:
            if stream.tail is not None:
                stream.tail.clear()

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
    def knows_run(self, stream: Stream, run_id: str) -> bool:
        """Return whether a run was ever begun here; as ``folded`` it may block for a read."""

    def take_over(self, stream: Stream, run_id: str) -> bool:
        """
        Hold an open run of another process from now on, which fences that one.

        False if there is none. As ``folded`` it may block for a call.
        """
        return False

    async def adopt_runs(
        self, log_id: str, run_ids: Collection[str], keys: Collection[str]
    ) -> frozenset[str]:
        """
        Know here what other nodes know of runs over HTTP, and of idempotency keys.

        Those runs are held here afterwards. Returns which of them other
        processes hold for themselves.
        """
        return frozenset()

    async def close_run(
        self, log_id: str, run_id: str, end: AgentError | AgentCancelled, because: str
    ) -> bool:
        """End an open run that another process holds, and fence it; False if there is none."""
        return False

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
    def streams(self) -> list[Stream]:
        """Return the streams that are in use in this process."""

    @abc.abstractmethod
    def _held_streams(self) -> list[Stream]:
        """Return at least the streams with runs that this process holds open."""

    def held_runs(self) -> Iterator[tuple[Stream, list[HeldRun]]]:
        """
        Yield the open runs that this process holds, stream by stream; a stream may have none.

        From memory alone and without the lock, for monitors, which may pause between two.
        """
        for stream in self._held_streams():
            runs = list(stream.runs.values())
            yield stream, [run for run in runs if run.is_open and run.first_seq]

    def fullest_intake(self) -> tuple[str, float]:
        """Return which intake is used the most, a log's or that of all, and how far: 0 to 1."""
        return "all logs", 0.0

    def expire_leases(self) -> None:
        """Close the runs whose lease is over, and those that go on 10 s after a cancel."""
        for stream in self._held_streams():
            close_overdue_runs(self, stream, self.now_ms())

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
        """
        Open the store; each ``start`` has its ``stop``, and the last one closes it.

        Raises:
            LogUnavailable: If the store cannot be opened now.
            ConfigError: If it never can.
        """

    @abc.abstractmethod
    async def stop(self) -> None:
        """Commit what the intake holds, then close the store."""

    @abc.abstractmethod
    def problem(self) -> str | None:
        """Return why the log does not commit now, for readiness; None if it does."""

    @abc.abstractmethod
    def statistics(self) -> dict[str, Any]:
        """Return counters and sizes: streams, events and bytes held, intake bytes, open runs."""

"""
What one process knows of one log: its head, tail, readers and runs.

A stream is guarded by its event log's lock. It holds no events but those of
the tail and the entries that wait to be committed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from catenary.eventlog.receipt import Receipt
from catenary.eventlog.tail import Tail
from catenary.events import WebSocketEvent
from catenary.fold import RunFold
from catenary.grammar import RunGrammar, RunStage
from catenary.position import Position
from catenary.record import Record
from catenary.wires.native import event_frame

ENDED_RUNS_REMEMBERED = 1000
KEYS_REMEMBERED = 1000


class Watcher(Protocol):
    """
    Someone who wants to know that a stream has new records.

    ``wake`` is called within the commit, on whatever thread commits, unless
    ``is_awake`` is already true. It must be short, must not block and must not
    call the log. A lost wake-up costs delay, never an event.
    """

    is_awake: bool

    def wake(self) -> None: ...


class HeldRun:
    """
    A run that this process holds: its grammar and what is known of it.

    Every emitter of the process shares the one object, found by run id.
    """

    __slots__ = (
        "agent_name",
        "cancel_by",
        "cancel_reason",
        "cancel_requested_at",
        "end_type",
        "failure",
        "first_seq",
        "fold",
        "grammar",
        "last_at",
        "last_seq",
        "lease",
        "on_cancel",
        "owner",
        "parent_run_id",
        "run_id",
        "started_at",
        "thread_id",
        "user_id",
    )

    def __init__(self, run_id: str, thread_id: str | None) -> None:
        self.run_id = run_id
        self.thread_id = thread_id
        self.user_id: str | None = None
        self.agent_name: str | None = None
        self.parent_run_id: str | None = None
        self.grammar = RunGrammar(run_id)
        self.lease: float | None = None
        """Seconds after the last event at which a run over HTTP is lost; None: the process."""
        self.started_at = 0
        self.last_at = 0
        self.first_seq = 0
        self.last_seq = 0
        self.end_type: str | None = None
        self.failure: Receipt | None = None
        """The first receipt of this run that the log refused; the next verb raises it."""
        self.fold: RunFold | None = None
        """What was folded so far: at least all that retention has dropped."""
        self.cancel_requested_at: int | None = None
        self.cancel_reason: str | None = None
        self.cancel_by: str | None = None
        self.on_cancel: list[Callable[[], None]] = []
        self.owner = 0
        """The ``id()`` of the object that closes the run when it is dropped."""

    def begin(self, event: WebSocketEvent) -> None:
        """Take over what the committed ``agent_started`` says."""
        self.user_id = event.user_id
        self.agent_name = event.agent_name
        self.parent_run_id = event.parent_run_id
        self.thread_id = event.thread_id
        self.lease = event.data.get("lease")
        self.first_seq = event.seq
        self.started_at = event.timestamp

    def close(self, because: str) -> None:
        """Take no more events, and forget what was said."""
        self.grammar.close(because)
        self.fold = None

    def request_cancel(self, at: int, reason: str | None, by: str | None) -> None:
        """Note that someone asked for a cancel; the first one's words stay."""
        if self.cancel_requested_at is None:
            self.cancel_requested_at, self.cancel_reason, self.cancel_by = at, reason, by

    @property
    def is_open(self) -> bool:
        """Whether the run has started and not ended."""
        return self.grammar.stage is RunStage.OPEN

    @property
    def is_cancel_requested(self) -> bool:
        """Whether someone asked for the run to be cancelled."""
        return self.cancel_requested_at is not None


class Stream:
    """One log, as this process knows it."""

    __slots__ = ("__weakref__", "epoch", "head", "keys", "log_id", "runs", "tail", "watchers")

    def __init__(self, log_id: str, epoch: str, head: int) -> None:
        self.log_id = log_id
        self.epoch = epoch
        self.head = head
        self.tail: Tail | None = None
        self.watchers: tuple[Watcher, ...] = ()
        self.runs: dict[str, HeldRun] = {}
        self.keys: OrderedDict[str, tuple[bytes, Receipt]] = OrderedDict()
        """Recent idempotency keys, so that a repeat needs no look into the store."""

    @property
    def position(self) -> Position:
        """The place after the last committed record."""
        return Position(self.epoch, self.head)

    def publish(self, record: Record) -> None:
        """Show a committed record, the next of its log, to the readers here."""
        self.head = record.seq
        tail = self.tail
        if tail is not None:
            tail.append(event_frame(record), record.thread_id)
            for watcher in self.watchers:
                if not watcher.is_awake:
                    watcher.wake()

    def add_watcher(self, watcher: Watcher) -> None:
        """Begin to wake a reader; with the first one the tail begins, at the head."""
        if self.tail is None:
            self.tail = Tail(self.head + 1)
        self.watchers = (*self.watchers, watcher)

    def remove_watcher(self, watcher: Watcher) -> None:
        """Stop to wake a reader; with the last one the tail goes."""
        self.watchers = tuple(other for other in self.watchers if other is not watcher)
        if not self.watchers:
            self.tail = None

    def begin_term(self, epoch: str) -> None:
        """Number what follows in a new term. Readers are woken to look again."""
        self.epoch = epoch
        if self.tail is not None:
            self.tail = Tail(self.head + 1)
            for watcher in self.watchers:
                watcher.wake()

    def cancel(
        self, run: HeldRun, at: int, reason: str | None, by: str | None
    ) -> list[Callable[[], None]]:
        """Note a request to cancel a run and its children; returns whom to tell."""
        children: dict[str | None, list[HeldRun]] = {}
        for other in self.runs.values():
            if other.is_open:
                children.setdefault(other.parent_run_id, []).append(other)
        to_tell: list[Callable[[], None]] = []
        asked = [run]
        while asked:
            one = asked.pop()
            one.request_cancel(at, reason, by)
            to_tell += one.on_cancel
            # Taken out, so that runs which name each other are asked once.
            asked += children.pop(one.run_id, ())
        return to_tell

    def remember_key(self, key: str, digest: bytes, receipt: Receipt) -> None:
        """Keep an idempotency key for repeats in this process."""
        self.keys[key] = (digest, receipt)
        if len(self.keys) > KEYS_REMEMBERED:
            self.keys.popitem(last=False)

    def forget_ended_runs(self) -> None:
        """Drop the oldest ended runs beyond what is kept for clear errors."""
        excess = len(self.runs) - ENDED_RUNS_REMEMBERED
        if excess <= 0:
            return
        ended = [run.run_id for run in self.runs.values() if not run.is_open]
        for run_id in ended[:excess]:
            del self.runs[run_id]

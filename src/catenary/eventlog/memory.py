"""
``memory://``: event logs in this process.

Commits within the intake step, needs no thread, and loses everything with the
process; a client that comes back then is told by another epoch.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from catenary.eventlog.base import PAGE_BYTES, PAGE_EVENTS, EventLog
from catenary.eventlog.entry import Entry
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.expiring import ExpiringTable
from catenary.eventlog.memory_stream import MemoryStream
from catenary.eventlog.model import CancelOutcome, Claim, Durability, Page, Retention, RunInfo
from catenary.eventlog.receipt import wake
from catenary.eventlog.retention import count_to_drop, erased_entry
from catenary.eventlog.stream import HeldRun, Stream, Watcher
from catenary.events import RUN_ENDS
from catenary.fold import RunState, encode_state
from catenary.grammar import Step
from catenary.position import Position
from catenary.record import Record
from catenary.wires.native import event_of

NODE_BYTES = 1024 * 1024 * 1024


class MemoryLog(EventLog):
    """
    Event logs in memory, at most ``node_bytes`` in all, idle users' oldest going first.

    One epoch for the whole process, until a user's position proves a loss.
    """

    durability = Durability.MEMORY

    def __init__(
        self,
        *,
        url: str = "memory://",
        retention: Retention | None = None,
        node_bytes: int = NODE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock=clock)
        self.url = url
        self._retention = retention or Retention()
        self._node_bytes = node_bytes
        self._epoch = new_epoch()
        self._streams: OrderedDict[str, MemoryStream] = OrderedDict()
        self._expiring = ExpiringTable(clock)

    # Appending

    def stream(self, log_id: str) -> MemoryStream:
        """Return the stream of a log; it is made with its first use."""
        stream = self._streams.get(log_id)
        if stream is None:
            with self._lock:
                stream = MemoryStream(log_id, self._epoch)
                stream.trim_later(self._retention)
                stream = self._streams.setdefault(log_id, stream)
        return stream

    def _check_room(self, stream: Stream, entries: Sequence[Entry]) -> None:
        """There is always room: nothing waits here, and retention bounds the rest."""

    def _accept(self, stream: Stream, entry: Entry, run: HeldRun | None) -> None:
        assert isinstance(stream, MemoryStream)
        seq = stream.head + 1
        now_ms = self.now_ms()
        record = entry.to_record(stream.epoch, seq, now_ms)
        stream.records.append(record)
        stream.bytes_held += record.size_bytes
        stream.terms.head = seq
        stream.publish(record)
        self.events_appended += 1
        receipt = entry.receipt
        receipt.commit(stream.epoch, seq)
        if receipt._waiters is not None:
            wake((receipt,))
        if run is not None:
            run.last_at, run.last_seq = now_ms, seq
            if entry.step is not Step.WITHIN:
                self._note_step(stream, entry, run, record)
        if len(stream.records) > stream.trim_events or stream.bytes_held > stream.trim_bytes:
            self._trim(stream)

    def _note_step(self, stream: MemoryStream, entry: Entry, run: HeldRun, record: Record) -> None:
        if entry.step is Step.START:
            run.begin(event_of(record))
        elif record.type in RUN_ENDS:
            run.end_type = record.type
            stream.unreported[run.run_id] = self._info(stream, run)
            begun = run.first_seq
            stream.compact_from = min(stream.compact_from or begun, begun)
            stream.forget_ended_runs()
            if self.run_ended is not None:
                self.run_ended()

    def _trim(self, stream: MemoryStream) -> None:
        drop = count_to_drop(
            stream.records,
            stream.bytes_held,
            self._retention,
            now_ms=self.now_ms(),
            open_first_seq=stream.oldest_open(),
        )
        if drop:
            stream.drop(drop)
        stream.trim_later(self._retention)

    def streams(self) -> list[Stream]:
        """Return every stream."""
        return list(self._streams.values())

    def _held_streams(self) -> list[Stream]:
        return self.streams()

    # Reading

    async def watch(self, log_id: str, watcher: Watcher) -> Stream:
        """Begin to wake ``watcher``."""
        stream = self.stream(log_id)
        with self._step():
            stream.add_watcher(watcher)
        return stream

    async def head(self, log_id: str) -> Position:
        """Return the head."""
        return self.stream(log_id).position

    async def locate(self, log_id: str, after: str) -> Position:
        """Turn a keyword or a position's text into a place."""
        stream = self.stream(log_id)
        with self._step():
            terms = stream.terms
            if after == "start":
                return terms.start
            if after == "now":
                return terms.position
            if after == "open":
                oldest = stream.oldest_open()
                if oldest is None:
                    return terms.position
                first = max(oldest, terms.first)
                return Position(terms.epoch_of(first), first - 1)
            place = Position.parse(after)
            if terms.is_future(place):
                self._begin_term(stream)
            return place

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
        stream = self.stream(log_id)
        with self._step():
            return stream.page(
                after, limit=limit, limit_bytes=limit_bytes, thread_ids=thread_ids, run_id=run_id
            )

    # Runs

    def _info(self, stream: Stream, run: HeldRun) -> RunInfo:
        return RunInfo(
            log_id=stream.log_id,
            run_id=run.run_id,
            thread_id=run.thread_id,
            agent_name=run.agent_name,
            parent_run_id=run.parent_run_id,
            is_open=run.is_open,
            holder=self.holder,
            first_seq=run.first_seq,
            last_seq=run.last_seq,
            started_at=run.started_at,
            last_at=run.last_at,
            lease=run.lease,
            cancel_requested_at=run.cancel_requested_at,
            end_type=run.end_type,
            kept_fold=encode_state(run.fold.state) if run.fold is not None else None,
        )

    def _infos(self, streams: Iterable[MemoryStream]) -> list[RunInfo]:
        with self._step():
            return [
                self._info(stream, run)
                for stream in streams
                for run in stream.runs.values()
                if run.first_seq
            ]

    async def runs(
        self,
        log_id: str,
        *,
        thread_id: str | None = None,
        only_open: bool = False,
    ) -> list[RunInfo]:
        """Return the runs of a log, oldest first."""
        return [
            info
            for info in self._infos([self.stream(log_id)])
            if (thread_id is None or info.thread_id == thread_id)
            and (info.is_open or not only_open)
        ]

    def folded(self, stream: Stream, run: HeldRun) -> RunState:
        """Return a run folded so far."""
        assert isinstance(stream, MemoryStream)
        with self._step():
            return stream.fold_run(run).state

    def knows_run(self, stream: Stream, run_id: str) -> bool:
        """Return whether a run was ever begun."""
        return run_id in stream.runs

    async def find_run(self, run_id: str) -> list[RunInfo]:
        """Return the runs with this id."""
        return [info for info in self._infos(list(self._streams.values())) if info.run_id == run_id]

    async def open_runs(self) -> list[RunInfo]:
        """Return every open run."""
        return [info for info in self._infos(list(self._streams.values())) if info.is_open]

    async def unreported_runs(self, limit: int) -> list[RunInfo]:
        """Return ended runs that nobody was told of."""
        with self._step():
            found = [
                info
                for stream in list(self._streams.values())
                for info in stream.unreported.values()
            ]
            return found[:limit]

    async def mark_reported(self, log_id: str, run_id: str) -> None:
        """Record that the application was told."""
        with self._step():
            self.stream(log_id).unreported.pop(run_id, None)

    async def _store_cancel(
        self,
        log_id: str,
        run_id: str,
        reason: str | None,
        by: str | None,
    ) -> tuple[CancelOutcome, list[Callable[[], None]]]:
        with self._step():
            run = self.stream(log_id).runs.get(run_id)
            if run is None or not run.first_seq:
                return CancelOutcome.NOT_FOUND, []
            if not run.is_open:
                return CancelOutcome.ALREADY_ENDED, []
            at = self.now_ms()
            return CancelOutcome.STORED, self.stream(log_id).cancel(run, at, reason, by)

    # Commands, tickets, what was seen

    async def claim_command(self, log_id: str, command_id: str, digest: bytes) -> Claim:
        """Claim a message, once."""
        with self._step():
            return self.stream(log_id).commands.claim(command_id, digest, now=self._clock())

    async def reclaim_command(self, log_id: str, command_id: str) -> None:
        """Nothing is interrupted here: the claims went with the process."""

    async def finish_command(self, log_id: str, command_id: str, reply: bytes) -> None:
        """Store the reply."""
        with self._step():
            self.stream(log_id).commands.finish(command_id, reply)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value."""
        with self._step():
            self._expiring.put(key, value, ttl)

    async def get(self, key: str) -> bytes | None:
        """Return a kept value."""
        with self._step():
            return self._expiring.get(key)

    async def take(self, key: str) -> bytes | None:
        """Return a kept value, once."""
        with self._step():
            return self._expiring.take(key)

    async def _store_seen(self, log_id: str, place: Position) -> None:
        stream = self.stream(log_id)
        with self._step():
            if place.epoch != stream.epoch or place.seq > stream.head:
                return
            if stream.seen is None or stream.seen.epoch != place.epoch or place > stream.seen:
                stream.seen = place

    async def seen(self, log_id: str) -> Position | None:
        """Return the furthest acknowledged place."""
        stream = self.stream(log_id)
        with self._step():
            seen = stream.seen
            return seen if seen is not None and seen.epoch == stream.epoch else None

    # Keeping

    async def erase(self, log_id: str, thread_id: str | None = None) -> int:
        """Erase a thread, or all."""
        stream = self.stream(log_id)
        with self._step():
            if thread_id is not None:
                return stream.erase_thread(thread_id)
            count = stream.erase_all()
            self._accept(stream, erased_entry(log_id, self.now_ms()), None)
            return count

    def _begin_term(self, stream: MemoryStream) -> None:
        stream.terms.begin(new_epoch())
        stream.begin_term(stream.terms.epoch)

    async def new_term(self, log_id: str | None = None) -> int:
        """Begin a new term for one log, or all."""
        with self._step():
            chosen = list(self._streams.values()) if log_id is None else [self.stream(log_id)]
            for stream in chosen:
                self._begin_term(stream)
            return len(chosen)

    async def sweep(self) -> None:
        """Trim by age, compact what ended runs left, drop expired values."""
        self.expire_leases()
        with self._step():
            self._expiring.sweep()
        for stream in list(self._streams.values()):
            with self._step():
                self._trim(stream)
                stream.compact()
        self._shrink()

    def _shrink(self) -> None:
        """Bring the whole log under its limit: idle users' oldest events go first."""
        with self._step():
            excess = sum(stream.bytes_held for stream in self._streams.values()) - self._node_bytes
            if excess <= 0:
                return
            idle_first = sorted(
                self._streams.values(),
                key=lambda stream: stream.records[-1].at if stream.records else 0,
            )
            for stream in idle_first:
                count = 0
                while excess > 0 and count < len(stream.records):
                    excess -= stream.records[count].size_bytes
                    count += 1
                if count:
                    stream.drop(count)

    # Life

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    def problem(self) -> str | None:
        """Memory always commits."""
        return None

    def statistics(self) -> dict[str, Any]:
        """Return counters and sizes."""
        streams = list(self._streams.values())
        return {
            "streams": len(streams),
            "events_held": sum(len(stream.records) for stream in streams),
            "bytes_held": sum(stream.bytes_held for stream in streams),
            "tail_bytes": sum(stream.tail.bytes_held for stream in streams if stream.tail),
            "intake_bytes": 0,
            "open_runs": sum(run.is_open for stream in streams for run in stream.runs.values()),
        }

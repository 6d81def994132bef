"""Runs in a Redis log: what is known of them, and who may say what in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from catenary.eventlog.committer.stream import CommitStream
from catenary.eventlog.entry import Entry
from catenary.eventlog.model import CancelOutcome, RunInfo
from catenary.eventlog.redis import asking
from catenary.eventlog.redis.hearing import HearingLog, look_at
from catenary.eventlog.redis.keys import BUCKETS
from catenary.eventlog.redis.reading import HEAD, read_chunk
from catenary.eventlog.redis.runs import cancel_of
from catenary.eventlog.redis.session import Session
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stored import encode
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.shared.runs import StoredKey, StoredRun
from catenary.eventlog.stream import HeldRun
from catenary.fold import RunState
from catenary.position import Position
from catenary.record import Record

LOOK_EVERYWHERE_SECONDS = 30.0
"""Ended runs that nobody reported are looked for in every bucket so often."""

_encode_json = msgspec.json.Encoder().encode


def _stored_key(value: bytes | None) -> StoredKey | None:
    if value is None:
        return None
    seq, epoch, digest = value.decode().split(" ")
    return StoredKey(epoch, int(seq), bytes.fromhex(digest))


class RunningLog(HearingLog):
    """The part of a Redis log that knows runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._buckets_with_ends: set[int] = set()
        self._looked_everywhere_at = float("-inf")

    # Looking

    def _locate_word(self, store: Store, stream: RedisStream, word: str) -> Position:
        terms = read_chunk(store, stream.at(self._now()), HEAD, limit=1).terms
        if word == "start":
            return terms.start
        if word == "open":
            open_runs = [run.info for run in asking.runs_of(store, stream) if run.info.is_open]
            if open_runs:
                first = max(open_runs[0].first_seq, terms.first)
                return Position(terms.epoch_of(first), first - 1)
        return terms.position

    async def _some(self, wanted: Iterable[asking.RunKey]) -> list[RunInfo]:
        found = await self._ask(asking.some_runs, self.keys, list(wanted))
        return [run.info for run in found if run is not None]

    async def find_run(self, run_id: str) -> list[RunInfo]:
        """Return the runs with this id."""
        found = await self._some(await self._ask(asking.logs_with_run, self.keys, run_id))
        return sorted(found, key=lambda info: info.started_at)

    async def open_runs(self) -> list[RunInfo]:
        """Return every open run."""
        found = await self._some(await self._ask(asking.all_open, self.keys))
        return sorted((info for info in found if info.is_open), key=lambda info: info.started_at)

    def _runs_of(self, store: Store, stream: RedisStream) -> list[StoredRun]:
        return asking.runs_of(store, stream)

    def _has_run(self, store: Store, stream: RedisStream, run_id: str) -> bool:
        return asking.has_run(store, stream, run_id)

    def _fold(
        self,
        store: Store | None,
        stream: RedisStream,
        run: HeldRun,
        head: Position,
        waiting: list[Entry],
    ) -> RunState:
        return asking.fold(store, stream, run, head, waiting, self._now())

    # Ends

    def _note_end(self, stream: CommitStream, record: Record, run: HeldRun | None) -> None:
        assert isinstance(stream, RedisStream)
        self._buckets_with_ends.add(stream.bucket)
        super()._note_end(stream, record, run)

    async def unreported_runs(self, limit: int) -> list[RunInfo]:
        """Return ended runs that nobody was told of; for a while they are this process's."""
        now = time.monotonic()
        is_everywhere = now - self._looked_everywhere_at >= LOOK_EVERYWHERE_SECONDS
        # Taken out first: what ends meanwhile is put in again.
        buckets, self._buckets_with_ends = self._buckets_with_ends, set()
        asked = range(BUCKETS) if is_everywhere else sorted(buckets)
        is_complete = False
        try:
            found = await self._ask(
                asking.take_ended, self.keys, asked, self.holder, limit, self._now()
            )
            is_complete = len(found) < limit
        finally:
            if not is_complete:
                self._buckets_with_ends |= buckets
        if is_everywhere:
            self._looked_everywhere_at = now
        self._buckets_with_ends.update(self.keys.bucket_of(log_id) for _, (log_id, _) in found)
        return await self._some(run for _, run in found)

    async def mark_reported(self, log_id: str, run_id: str) -> None:
        """Record that the application was told."""
        await self._ask(asking.mark_ended, self.keys, (log_id, run_id), self._now())

    # Cancelling

    async def _store_cancel(
        self, log_id: str, run_id: str, reason: str | None, by: str | None
    ) -> tuple[CancelOutcome, list[Callable[[], None]]]:
        stream = self.stream(log_id)
        words = _encode_json([reason, by])[1:-1]

        def store(session: Session) -> CancelOutcome:
            answer = asking.cancel(session.store, self.keys, stream, run_id, words, session.now)
            if answer[0] != b"stored":
                found = answer[0] == b"ended"
                return CancelOutcome.ALREADY_ENDED if found else CancelOutcome.NOT_FOUND
            self._tell_holders(session.store, stream, answer[1:], words)
            return CancelOutcome.STORED

        return await self._do(store, stream), []

    def _tell_holders(
        self, store: Store, stream: RedisStream, told: list[bytes], words: bytes
    ) -> None:
        """Tell the processes that hold the runs; who misses it learns with its next append."""
        packed = b"[%b,%b]" % (told[0], words)
        by_holder: dict[str, list[str]] = {}
        for run_id, holder in zip(told[1::2], told[2::2], strict=True):
            by_holder.setdefault(holder.decode(), []).append(run_id.decode())
        for name, run_ids in by_holder.items():
            if name == self.holder:
                self._note_cancels(stream, dict.fromkeys(run_ids, cancel_of(packed)))
            else:
                said = b"c" + encode((stream.log_id, packed.decode(), run_ids))
                store.command(0, "PUBLISH", self.keys.node_channel(name), said)

    # Holding

    def _look_at_held(self) -> None:
        with self._step():
            held = [
                (stream, list(stream.open_runs))
                for stream in self._busy.values()
                if stream.open_runs and isinstance(stream, RedisStream)
            ]
        if not held:
            return
        streams = [stream for stream, _ in held]
        looks = look_at(self._store, streams, self._now(), [runs for _, runs in held])
        for (stream, run_ids), look in zip(held, looks, strict=True):
            for run_id, (owner, cancel) in zip(run_ids, look.runs, strict=True):
                run = stream.runs.get(run_id)
                if run is None:
                    continue
                if cancel is not None:
                    self._note_cancels(stream, {run_id: cancel_of(cancel)})
                if owner != self.holder:
                    self._lose_run(stream, run)

    def _adopt_leased(
        self, store: Store, stream: RedisStream, run_ids: list[str], keys: list[str]
    ) -> tuple[list[StoredRun | None], list[StoredKey | None]]:
        found, values = asking.adopt(store, self.keys, stream, self.holder, "leased", run_ids, keys)
        return found, [_stored_key(value) for value in values]

    def _stored_run(self, store: Store, stream: RedisStream, run_id: str) -> StoredRun | None:
        return asking.some_runs(store, self.keys, [(stream.log_id, run_id)])[0]

    def _adopt_any(self, store: Store, stream: RedisStream, run_id: str) -> StoredRun | None:
        (stored,), _ = asking.adopt(store, self.keys, stream, self.holder, "any", [run_id])
        return stored

"""Runs in a NATS log: what is known of them, and who may say what in them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from catenary.eventlog.entry import Entry
from catenary.eventlog.model import CancelOutcome, RunInfo
from catenary.eventlog.nats import asking, records
from catenary.eventlog.nats.hearing import HearingLog
from catenary.eventlog.nats.names import token
from catenary.eventlog.nats.posts import Found
from catenary.eventlog.nats.reading import read_last
from catenary.eventlog.nats.records import UsedKey
from catenary.eventlog.nats.session import Session
from catenary.eventlog.nats.state import Held
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.shared.runs import Cancel, StoredKey, StoredRun
from catenary.eventlog.stream import HeldRun
from catenary.fold import RunState
from catenary.position import Position

_encode = msgspec.msgpack.Encoder().encode


def _is_anyones(_: Held) -> bool:
    return True


def _is_leased(held: Held) -> bool:
    return held.lease > 0


def _stored_key(found: Found | None) -> StoredKey | None:
    if found is None:
        return None
    used = records.decode(found.payload, UsedKey)
    return StoredKey(used.epoch, used.seq, used.digest)


class RunningLog(HearingLog):
    """The part of a NATS log that knows runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._forgotten: set[tuple[NatsStream, str]] = set()
        """Runs that are this process's in the store, and nobody's here."""

    # Looking

    def _locate_word(self, store: Store, stream: NatsStream, word: str) -> Position:
        state = read_last(store, stream, self._now_ms()).state
        terms = state.terms
        if word == "start":
            return terms.start
        if word == "open" and state.oldest_open is not None:
            first = max(state.oldest_open, terms.first)
            return Position(terms.epoch_of(first), first - 1)
        return terms.position

    async def _some(self, wanted: Collection[asking.RunKey]) -> list[RunInfo]:
        asked = [(self.stream(log_id), run_id) for log_id, run_id in wanted]
        found = await self._ask(asking.some_runs, asked)
        return [run.info for run in found if run is not None]

    async def find_run(self, run_id: str) -> list[RunInfo]:
        """Return the runs with this id."""
        logs = await self._ask(asking.logs_with_run, run_id)
        found = await self._some([(log_id, run_id) for log_id in logs])
        return sorted(found, key=lambda info: info.started_at)

    async def open_runs(self) -> list[RunInfo]:
        """Return every open run."""
        held = await self._ask(asking.logs_of)
        leased = await self._ask(asking.logs_with_leases)
        found: list[RunInfo] = []
        for log_id in leased.union(*held.values()):
            found += await self.runs(log_id, only_open=True)
        return sorted(found, key=lambda info: info.started_at)

    def _runs_of(self, store: Store, stream: NatsStream) -> list[StoredRun]:
        return asking.runs_of(store, stream)

    def _has_run(self, store: Store, stream: NatsStream, run_id: str) -> bool:
        return asking.has_run(store, stream, run_id)

    def _fold(
        self,
        store: Store | None,
        stream: NatsStream,
        run: HeldRun,
        head: Position,
        waiting: list[Entry],
    ) -> RunState:
        return asking.fold(store, stream, run, head, waiting, self._now_ms())

    # Ends

    async def unreported_runs(self, limit: int) -> list[RunInfo]:
        """Return ended runs that nobody was told of; for a while they are this process's."""
        found = await self._ask(asking.take_ended, self.stream, self.holder, limit, self._now_ms())
        return await self._some(found)

    async def mark_reported(self, log_id: str, run_id: str) -> None:
        """Record that the application was told."""
        await self._ask(asking.mark_ended, self.stream(log_id), run_id)

    # Cancelling

    async def _store_cancel(
        self, log_id: str, run_id: str, reason: str | None, by: str | None
    ) -> tuple[CancelOutcome, list[Callable[[], None]]]:
        stream = self.stream(log_id)

        def store(session: Session) -> CancelOutcome:
            is_open, holders, cancel = asking.cancel(
                session.store, stream, run_id, (reason, by), session.at
            )
            if not is_open:
                is_known = asking.has_run(session.store, stream, run_id)
                return CancelOutcome.ALREADY_ENDED if is_known else CancelOutcome.NOT_FOUND
            self._tell_holders(session.store, stream, holders, cancel)
            return CancelOutcome.STORED

        return await self._do(store, stream), []

    def _tell_holders(
        self, store: Store, stream: NatsStream, holders: dict[str, str], cancel: Cancel
    ) -> None:
        """Tell the processes that hold the runs; who misses it learns with its next append."""
        by_holder: dict[str, list[str]] = {}
        for run_id, holder in holders.items():
            by_holder.setdefault(holder, []).append(run_id)
        for name, run_ids in by_holder.items():
            if name == self.holder:
                self._note_cancels(stream, dict.fromkeys(run_ids, cancel))
            else:
                said = b"c" + _encode((stream.log_id, run_ids, cancel))
                store.tell(self.names.node(name), said)

    # Holding

    def _look_at_held(self) -> None:
        with self._step():
            streams = {stream for stream in self._busy.values() if stream.open_runs}
            streams.update(self._marked.values())
        asked = [stream for stream in streams if isinstance(stream, NatsStream)]
        for stream, state in zip(asked, asking.states_of(self._store, asked), strict=True):
            known = state.runs if state is not None else {}
            for run_id in list(stream.open_runs):
                self._look_at_run(stream, run_id, known.get(run_id))
            for run_id, held in known.items():
                if held.holder == self.holder and self._is_forgotten(stream, run_id):
                    self._forgotten.add((stream, run_id))
            if not any(held.holder == self.holder for held in known.values()):
                self._unmark(stream)

    def _look_at_run(self, stream: NatsStream, run_id: str, held: Held | None) -> None:
        run = stream.runs.get(run_id)
        if run is None:
            return
        if held is not None and held.cancel is not None:
            self._note_cancels(stream, {run_id: held.cancel})
        if held is None or held.holder != self.holder:
            self._lose_run(stream, run)

    def _unmark(self, stream: NatsStream) -> None:
        """Take back what was said of a log where no run is held any more."""
        if self._marked.pop(stream.log_id, None) is not None:
            subject = self.names.holding(self.holder, stream.log_id)
            self._store.purge(self.names.values_stream, subject)

    def _adopt_leased(
        self, store: Store, stream: NatsStream, run_ids: list[str], keys: list[str]
    ) -> tuple[list[StoredRun | None], list[StoredKey | None]]:
        found = asking.adopt(
            store, stream, self.holder, run_ids, self._now_ms(), may_adopt=_is_leased
        )
        subjects = [stream.names.known + token(key) for key in keys]
        used = store.lasts(self.names.events_stream, subjects)
        return found, [_stored_key(one) for one in used]

    def _stored_run(self, store: Store, stream: NatsStream, run_id: str) -> StoredRun | None:
        return asking.some_runs(store, [(stream, run_id)])[0]

    def _adopt_any(self, store: Store, stream: NatsStream, run_id: str) -> StoredRun | None:
        self._mark_all(store, [stream])
        (stored,) = asking.adopt(
            store, stream, self.holder, [run_id], self._now_ms(), may_adopt=_is_anyones
        )
        return stored

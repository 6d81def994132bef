"""What is nobody's in particular in a NATS log: what its notes say is due, and lost runs."""

from __future__ import annotations

import logging
import time

from catenary.errors import LogUnavailable
from catenary.eventlog.closing import producer_lost
from catenary.eventlog.nats import aging, asking, keeping, leases, records, rewriting
from catenary.eventlog.nats.posts import Found
from catenary.eventlog.nats.records import Due
from catenary.eventlog.nats.running import RunningLog
from catenary.eventlog.nats.state import Held
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.overdue import CANCEL_PATIENCE_MS, NOT_STOPPED, SILENT
from catenary.events import AgentCancelled, AgentError

logger = logging.getLogger("catenary.eventlog")


class DutifulLog(RunningLog):
    """The part of a NATS log that looks after all of them."""

    _aging: aging.Aging | None = None

    def _take_duty(self, store: Store) -> bool:
        has_duty = leases.take_duty(store, self.holder, self._now_ms())
        if not has_duty:
            self._aging = None
        return has_duty

    async def _do_own(self) -> None:
        await self._compact_ended()
        await self._close_forgotten()

    async def _compact_ended(self) -> None:
        """Merge what runs said that have ended here; what is left undone goes with the next."""
        ended, self._to_compact = self._to_compact, set()
        for stream in ended:
            await self._ask(rewriting.compact, stream, self._now_ms())

    def _let_age(self, store: Store) -> None:
        if self._aging is None:
            self._aging = aging.Aging(self._retention)
        self._aging.look(store, self._now_ms())

    # What is due

    async def _do_what_is_due(self) -> None:
        now_ms = self._now_ms()
        for found, due in await self._ask(_due_by, now_ms):
            stream = self.stream(due.log_id)
            kind = found.subject.rpartition(".")[2]
            later: int | None = None
            if kind == "g":
                await self._ask(rewriting.collect, stream, now_ms)
            else:
                later = await self._close_overdue(stream, kind, now_ms)
            try:
                await self._ask(keeping.put_off, found, due.log_id, later)
            except LogUnavailable as error:
                logger.debug("%s: %s", self.address.shown, error)
        await self._ask(self._let_age)

    async def _close_overdue(self, stream: NatsStream, kind: str, now_ms: int) -> int | None:
        """End the runs of a log whose time is over; returns when the next one's is."""
        state = await self._ask(asking.state_of, stream)
        later = None
        for run_id, held in (state.runs if state is not None else {}).items():
            ends = _ends_by_cancel(held) if kind == "x" else _ends_by_lease(held)
            if ends is None:
                continue
            if now_ms < ends:
                later = ends if later is None else min(later, ends)
                continue
            await self._close(stream, run_id, *_end_of(held, kind))
        return later

    # Runs of lost processes

    async def _close_lost_runs(self) -> None:
        by_holder = await self._ask(asking.logs_of)
        # Asked after that: whoever says that it holds something had a lease before.
        alive = await self._ask(self._who_lives)
        for holder, log_ids in by_holder.items():
            if holder == self.holder or holder in alive:
                continue
            for log_id in log_ids:
                if not self._lease.may_judge(time.monotonic()):
                    return
                await self._close_all_of(holder, self.stream(log_id))

    async def _close_all_of(self, holder: str, stream: NatsStream) -> None:
        state = await self._ask(asking.state_of, stream)
        runs = state.runs if state is not None else {}
        lost = [name for name, held in runs.items() if held.holder == holder and not held.lease]
        for run_id in lost:
            await self._close_as_lost(stream, run_id, holder)
        subject = self.names.holding(holder, stream.log_id)
        await self._ask(lambda store: store.purge(self.names.values_stream, subject))

    async def _close_forgotten(self) -> None:
        """End the runs that are this process's in the store, and nobody's here."""
        while self._forgotten:
            stream, run_id = self._forgotten.pop()
            if self._is_forgotten(stream, run_id):
                await self._close_as_lost(stream, run_id, self.holder)


def _due_by(store: Store, now_ms: int) -> list[tuple[Found, Due]]:
    every = store.every(store.names.values_stream, store.names.every("t", "*", "*"))
    dues = [(found, records.decode(found.payload, Due)) for found in every]
    return [(found, due) for found, due in dues if due.at <= now_ms]


def _ends_by_cancel(held: Held) -> int | None:
    return held.cancel[0] + CANCEL_PATIENCE_MS if held.cancel is not None else None


def _ends_by_lease(held: Held) -> int | None:
    # Just after its end, for at its end it still lives.
    return held.last_at + held.lease + 1 if held.lease else None


def _end_of(held: Held, kind: str) -> tuple[AgentError | AgentCancelled, str]:
    if kind == "x" and held.cancel is not None:
        return AgentCancelled(reason=held.cancel[1], by=held.cancel[2]), NOT_STOPPED
    return producer_lost(held.holder, held.last_at), SILENT

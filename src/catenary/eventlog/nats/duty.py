"""
What is nobody's in particular: lost processes' runs, late cancels, old events.

One process at a time has the duty; each sweep asks for what is due.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from catenary.errors import LogUnavailable
from catenary.eventlog.closing import producer_lost
from catenary.eventlog.model import RunInfo
from catenary.eventlog.nats import aging, asking, keeping, leases, records, rewriting
from catenary.eventlog.nats.posts import Found
from catenary.eventlog.nats.records import Due
from catenary.eventlog.nats.running import RunningLog
from catenary.eventlog.nats.session import Session
from catenary.eventlog.nats.state import Held
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.overdue import CANCEL_PATIENCE_MS, NOT_STOPPED, SILENT, close_held_run
from catenary.events import AgentCancelled, AgentError

logger = logging.getLogger("catenary.eventlog")

_LOST = "its process was silent for longer than its lease"


class DutifulLog(RunningLog):
    """The part of a NATS log that looks after all of them."""

    _lost_looked_at = float("-inf")
    _aging: aging.Aging | None = None

    async def sweep(self) -> None:
        """Do what is due, if this process has the duty; and compare heads now and then."""
        await self._is_open()
        self._let_go()
        await self._look_at_heads()
        await self._compact_ended()
        await self._close_forgotten()
        if not await self._ask(leases.take_duty, self.holder, self._now_ms()):
            self._aging = None
            return
        await self._do_what_is_due()
        await self._ask(self._let_age)
        now = time.monotonic()
        if now - self._lost_looked_at >= self._lease.renew_seconds and self._lease.may_judge(now):
            self._lost_looked_at = now
            await self._close_lost_runs()

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

    async def _close(
        self, stream: NatsStream, run_id: str, end: AgentError | AgentCancelled, because: str
    ) -> None:
        """End a run, held here or elsewhere."""
        run = stream.runs.get(run_id)
        if run is not None and run.is_open and run_id in stream.open_runs:
            close_held_run(self, stream, run, end, int(self._clock() * 1000))
        else:
            await self.close_run(stream.log_id, run_id, end, because)

    # Runs of lost processes

    async def _close_lost_runs(self) -> None:
        """End the runs of processes whose lease is over."""
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
        await self._close_as_lost(stream, lost)
        subject = self.names.holding(holder, stream.log_id)
        await self._ask(lambda store: store.purge(self.names.values_stream, subject))

    async def _close_forgotten(self) -> None:
        """End the runs that are this process's in the store, and nobody's here."""
        while self._forgotten:
            stream, run_id = self._forgotten.pop()
            if self._is_forgotten(stream, run_id):
                await self._close_as_lost(stream, [run_id])

    async def _close_as_lost(self, stream: NatsStream, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:

            def close(session: Session, run_id: str = run_id) -> bool:
                return self._end_stored(session, stream, run_id, _lost, _LOST)

            if await self._do(close, stream):
                logger.warning("run %s of %s is closed: its process is lost", run_id, stream.log_id)


def _lost(info: RunInfo) -> AgentError:
    return producer_lost(info.holder, info.last_at)


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

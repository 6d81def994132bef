"""What is nobody's in particular in a Redis log: what the store says is due, and lost runs."""

from __future__ import annotations

import time
from collections import defaultdict

from catenary.eventlog.closing import producer_lost
from catenary.eventlog.model import RunInfo
from catenary.eventlog.overdue import NOT_STOPPED, SILENT
from catenary.eventlog.redis import asking, keeping
from catenary.eventlog.redis.running import RunningLog
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stream import RedisStream
from catenary.events import AgentCancelled, AgentError

DUTY_MS = 3000
"""Whoever has the duty loses it after so long without a sweep."""

Due = tuple[int, tuple[str, str, str]]


class DutifulLog(RunningLog):
    """The part of a Redis log that looks after all of them."""

    def _take_duty(self, store: Store) -> bool:
        duty = self.keys.duty
        if store.command(0, "SET", duty, self.holder, "NX", "PX", DUTY_MS) is not None:
            return True
        if store.command(0, "GET", duty) != self.holder.encode():
            return False
        return bool(store.command(0, "PEXPIRE", duty, DUTY_MS))

    # What is due

    async def _do_what_is_due(self) -> None:
        now_ms = await self._ask(self._now_ms)
        due = await self._ask(asking.what_is_due, self.keys, now_ms)
        by_kind: defaultdict[str, list[Due]] = defaultdict(list)
        for item in due:
            by_kind[item[1][0]].append(item)
        await self._trim_old(by_kind["a"])
        for item in by_kind["c"]:
            await self._compact(item)
        for item in by_kind["x"]:
            await self._close_cancelled(item)
        for item in by_kind["l"]:
            await self._close_silent(item, now_ms)

    def _now_ms(self, store: Store) -> int:
        """Return the time that the store goes by."""
        if self._own_clock is not None:
            return int(self._own_clock() * 1000)
        seconds, micros = store.command(0, "TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def _trim_old(self, due: list[Due]) -> None:
        by_bucket: defaultdict[int, list[RedisStream]] = defaultdict(list)
        for bucket, (_, log_id, _) in due:
            by_bucket[bucket].append(self.stream(log_id))
        for streams in by_bucket.values():
            for stream in await self._ask(keeping.trim, self.keys, streams, self._now()):
                await self._ask(
                    keeping.drop_folding, self.keys, stream, self._now(), self._retention
                )

    async def _compact(self, due: Due) -> None:
        bucket, (_, log_id, run_id) = due
        stream = self.stream(log_id)
        (info,) = await self._some([(log_id, run_id)]) or (None,)
        is_done = info is None or await self._ask(self._compact_run, stream, info)
        if is_done:
            await self._ask(asking.put_off, self.keys, bucket, due[1], None)

    def _compact_run(self, store: Store, stream: RedisStream, info: RunInfo) -> bool:
        log = stream.at(self._now())
        after = info.first_seq - 1
        while True:
            reached = keeping.compact(store, log, after)
            if reached is None or reached >= info.last_seq:
                return True
            after = reached

    # Runs that should have ended

    async def _close_cancelled(self, due: Due) -> None:
        bucket, (_, log_id, run_id) = due

        def end(info: RunInfo) -> AgentError | AgentCancelled:
            cancel = cancels.get(info.run_id)
            return AgentCancelled(reason=cancel[0], by=cancel[1]) if cancel else AgentCancelled()

        cancels: dict[str, tuple[str | None, str | None]] = {}
        (stored,) = await self._ask(asking.some_runs, self.keys, [(log_id, run_id)])
        if stored is not None and stored.cancel is not None:
            cancels[run_id] = stored.cancel[1:]
            if stored.info.is_open:
                await self._close(self.stream(log_id), run_id, end(stored.info), NOT_STOPPED)
        await self._ask(asking.put_off, self.keys, bucket, due[1], None)

    async def _close_silent(self, due: Due, now_ms: int) -> None:
        bucket, (_, log_id, run_id) = due
        (info,) = await self._some([(log_id, run_id)]) or (None,)
        later: int | None = None
        if info is not None and info.is_open:
            ends = info.last_at + int((info.lease or 0) * 1000)
            if now_ms > ends:
                end = producer_lost(info.holder, info.last_at)
                await self._close(self.stream(log_id), run_id, end, SILENT)
            else:
                # Due just after its end, for at its end it still lives.
                later = ends + 1
        await self._ask(asking.put_off, self.keys, bucket, due[1], later)

    async def _close_lost_runs(self) -> None:
        """End the runs of processes whose lease is over, and what was left half taken over."""
        holders = await self._ask(asking.all_open, self.keys)
        # Asked after that: whoever holds a run had a lease before.
        alive = await self._ask(self._who_lives)
        for (log_id, run_id), holder in holders.items():
            stream = self.stream(log_id)
            is_lost = (
                self._is_forgotten(stream, run_id)
                if holder == self.holder
                else holder and holder not in alive
            )
            if is_lost and self._lease.may_judge(time.monotonic()):
                await self._close_as_lost(stream, run_id, holder)

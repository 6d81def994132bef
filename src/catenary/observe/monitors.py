"""
The monitors of a live bridge: what campaigns check, checked lightly in production.

They look now and then at what the bridge knows anyway, and closely at a few
connections. What they find are metrics, and warnings under ``catenary.monitor``
that say what to look at.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from math import ceil
from typing import TYPE_CHECKING

from catenary.errors import CloseCode, LogError
from catenary.observe.alarms import Alarms
from catenary.observe.monitoring import Monitoring
from catenary.observe.run_watch import RunWatch, told
from catenary.observe.sample import Sample
from catenary.observe.tap import CloseLook, Seen
from catenary.position import Position

if TYPE_CHECKING:
    from catenary.eventlog.base import EventLog
    from catenary.eventlog.stream import Stream
    from catenary.manager import WebSocketManager

logger = logging.getLogger("catenary.monitor")

SLICE = 100
"""So many frames or streams are looked at in one turn of the loop."""

DROPS = (1006, int(CloseCode.HEARTBEAT_MISSED))
"""Close codes of connections that broke."""


class LiveMonitors:
    """
    Looks at a bridge every few seconds, on its loop and off the way of events.

    Nothing is added to a connection that is not in the sample. What was found
    is in ``manager.counters.monitor``.
    """

    def __init__(self, log: EventLog, manager: WebSocketManager, monitoring: Monitoring) -> None:
        self._log = log
        self._manager = manager
        self._monitoring = monitoring
        self._counters = manager.counters.monitor
        self._alarms = Alarms(monitoring.repeat)
        self._sample = Sample(manager, size=monitoring.connections, time=monitoring.sample_time)
        self._drops: deque[tuple[float, int]] = deque()

    async def work(self) -> None:
        """Look, again and again, until cancelled; then nothing of it is left on any connection."""
        self._drops.append((time.monotonic(), self._dropped()))
        try:
            while True:
                self._sample.renew(time.monotonic())
                self._counters.connections_sampled = len(self._sample.looks)
                await asyncio.sleep(self._monitoring.interval)
                try:
                    await self._look()
                except Exception:
                    logger.exception("the monitors failed; they look again")
        finally:
            self._sample.end()
            self._counters.connections_sampled = 0

    async def _look(self) -> None:
        now = time.monotonic()
        for look in self._sample.looks:
            await self._look_closely(look, now)
        runs = await self._look_at_runs()
        await self._warn_of_silence(runs, now)
        self._look_at_crowds(runs, now)
        self._look_at_drops(now)
        self._look_at_intake(now)

    # A few connections, closely

    async def _look_closely(self, look: CloseLook, now: float) -> None:
        for number, seen in enumerate(look.frames(), 1):
            self._take(look, seen, now)
            if number % SLICE == 0:
                await asyncio.sleep(0)

    def _take(self, look: CloseLook, seen: Seen, now: float) -> None:
        self._counters.events_checked += seen.is_event
        if seen.latency is not None:
            self._counters.latency_seconds.observe(seen.latency)
            if seen.latency > self._monitoring.latency:
                self._warn_about(
                    look, "latency", now,
                    f"an event reached connection {look.connection_id} of {look.user_id} "
                    f"{seen.latency:.2f} s after it was emitted: the loop is busy, or the log slow; "
                    "see catenary_append_duration_seconds",
                )  # fmt: skip
        if seen.finding is not None:
            fault, what = seen.finding
            self._counters.violations[fault] += 1
            self._warn_about(
                look, f"violation {fault}", now,
                f"wrong delivery ({fault}) on connection {look.connection_id} of {look.user_id}: "
                f"{what}. That is a defect of the bridge; report it. Look: catenary inspect {look.user_id}",
            )  # fmt: skip

    def _warn_about(self, look: CloseLook, kind: str, now: float, text: str) -> None:
        self._alarms.warn(
            kind,
            look.connection_id,
            now,
            text,
            connection_id=look.connection_id,
            user_id=look.user_id,
            log_id=look.log_id if look.log_id != look.user_id else None,
        )

    # Runs, and who has many

    async def _look_at_runs(self) -> RunWatch:
        watch = RunWatch(now_ms=int(time.time() * 1000), limit=self._monitoring.silence)
        for number, (stream, runs) in enumerate(self._log.held_runs(), 1):
            watch.take(stream, runs)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return watch

    async def _warn_of_silence(self, watch: RunWatch, now: float) -> None:
        self._counters.runs_silent = len(watch.silent)
        for silent in watch.silent:
            run, stream = silent.run, silent.stream
            subject = f"{stream.log_id} {run.run_id}"
            if not self._alarms.is_due("silence", subject, now):
                continue
            text = told(silent, await self._type_at(stream, run.last_seq), self._log.holder)
            ids = {"user_id": run.user_id, "thread_id": run.thread_id, "run_id": run.run_id}
            self._alarms.warn("silence", subject, now, text, **ids)

    async def _type_at(self, stream: Stream, seq: int) -> str:
        try:
            page = await self._log.read(stream.log_id, Position(stream.epoch, seq - 1), limit=1)
        except LogError:
            return "unknown"
        return page.records[0].type if page.records else "unknown"

    def _look_at_crowds(self, watch: RunWatch, now: float) -> None:
        limit = self._manager.limits.connections_per_user
        connected = self._manager.crowds(ceil(limit * self._monitoring.connection_share))
        busy = [
            (user_id, count)
            for user_id, count in watch.of_user.items()
            if count >= self._monitoring.runs_per_user
        ]
        self._counters.users_crowded = len({user_id for user_id, _ in (*connected, *busy)})
        for user_id, count in connected:
            text = (
                f"{user_id} has {count} connections of {limit}; above that the longest silent one "
                f"is closed with 4505. Look: catenary inspect {user_id}"
            )
            self._alarms.warn("connections", user_id, now, text, user_id=user_id)
        for user_id, count in busy:
            text = (
                f"{user_id} has {count} open runs: agents that do not end, or are started too "
                f"often. Look: catenary inspect {user_id}"
            )
            self._alarms.warn("runs", user_id, now, text, user_id=user_id)

    # The node

    def _look_at_drops(self, now: float) -> None:
        looked_for, drops = self._monitoring, self._drops
        drops.append((now, self._dropped()))
        while drops[0][0] < now - looked_for.drop_window:
            drops.popleft()
        broke = drops[-1][1] - drops[0][1]
        connections = self._manager.connection_count + broke
        self._counters.drop_ratio = broke / connections if connections else 0.0
        if broke >= looked_for.drops and self._counters.drop_ratio >= looked_for.drop_share:
            text = (
                f"{broke} of {connections} connections broke without a close frame within "
                f"{now - drops[0][0]:.0f} s: look at the network, and at the timeouts of proxies; "
                "catenary inspect shows who is connected"
            )
            self._alarms.warn("drops", "", now, text)

    def _dropped(self) -> int:
        closes = self._manager.counters.closes
        return sum(closes[code] for code in DROPS)

    def _look_at_intake(self, now: float) -> None:
        of, share = self._log.fullest_intake()
        self._counters.intake_ratio = share
        if share >= self._monitoring.intake_share:
            text = (
                f"the intake of {of} is full to {share:.0%}, and verbs raise LogFull when it is "
                f"full: {self._log.problem() or 'events come faster than the log commits them'}"
            )
            self._alarms.warn("intake", of, now, text)

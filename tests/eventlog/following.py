"""Readers of a log without a connection, and waiting for what they see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from catenary.errors import LogUnavailable
from catenary.eventlog.nats.log import NatsLog
from catenary.eventlog.redis.log import RedisLog
from catenary.eventlog.stream import Stream
from catenary.eventlog.terms import Gap
from catenary.position import Position
from catenary.wires.native import payload_of
from tests.eventlog.support import USER, Bell

SharedLog = RedisLog | NatsLog


async def until(condition: Callable[[], Any], patience: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.005)


class Follower:
    """A reader that follows the tail and reads pages where it must."""

    def __init__(self, log: SharedLog, stream: Stream, place: Position) -> None:
        self.log = log
        self.stream = stream
        self.place = place
        self.bodies: list[bytes] = []
        self.gaps: list[Gap] = []

    @classmethod
    async def of(cls, log: SharedLog, log_id: str = USER, after: str = "start") -> Follower:
        stream = await log.watch(log_id, Bell())
        return cls(log, stream, await log.locate(log_id, after))

    async def catch_up(self) -> None:
        """Take what can be had now."""
        tail = self.stream.tail
        taken = None
        if tail is not None and self.place.epoch == self.stream.epoch:
            taken = tail.after(self.place.seq, 10**9, None)
        if taken is not None:
            self.bodies += map(payload_of, taken[0])
            self.place = Position(self.place.epoch, taken[1])
            return
        page = await self.log.read(self.stream.log_id, self.place)
        if page.gap is not None:
            self.gaps.append(page.gap)
        self.bodies += [record.body for record in page.records]
        self.place = page.place

    async def reach(self, seq: int, patience: float = 10.0) -> None:
        """Follow until a number."""
        async with asyncio.timeout(patience):
            while self.place.seq < seq:
                await self.catch_up()
                await asyncio.sleep(0.001)

    async def reach_place(self, place: Position, patience: float = 15.0) -> None:
        """Follow until a place, whatever the store does meanwhile."""
        async with asyncio.timeout(patience):
            while self.place != place:
                await self.catch_up_or_wait()

    async def catch_up_or_wait(self) -> None:
        """Take what can be had now, if the store answers, and let others go on."""
        with suppress(LogUnavailable):
            await self.catch_up()
        await asyncio.sleep(0.005)

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from catenary import UserWebSocketContext, WebSocketBridgeFactory
from catenary.errors import LogUnavailable, RecordCorrupt
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import Page
from catenary.limits import Limits

from .test_connection import Reader, note


class UnreadableLog(MemoryLog):
    """A log whose reads fail as long as there is a reason to."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason: Exception | None = reason
        self.reads = 0

    async def read(self, *args: Any, **options: Any) -> Page:
        self.reads += 1
        if self.reason is not None:
            raise self.reason
        return await super().read(*args, **options)


async def test_a_log_that_comes_back_is_read_on() -> None:
    """While it cannot be read the connection stays; then nothing is missing."""
    log = UnreadableLog(LogUnavailable("away"))
    async with WebSocketBridgeFactory(log=log) as factory:
        emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        note(emitter, 3)
        reader = Reader(factory)
        await reader.open()
        async with asyncio.timeout(5):
            while not log.reads:
                await asyncio.sleep(0)
        assert reader.types == ["connected"]
        log.reason = None
        await reader.until(5)
        assert reader.types == ["connected", *["app.note"] * 3, "live"]


@pytest.mark.parametrize(
    ("reason", "code"), [(LogUnavailable("away"), 4003), (RecordCorrupt("row 7"), 1011)]
)
async def test_a_log_that_stays_away_closes_its_readers(reason: Exception, code: int) -> None:
    """After the log's patience with 4003, at once with 1011 if waiting cannot help; once."""
    log = UnreadableLog(reason)
    async with WebSocketBridgeFactory(log=log, limits=Limits(log_patience=0)) as factory:
        emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        note(emitter)
        reader = Reader(factory)
        await reader.open()
        async with asyncio.timeout(5):
            while reader.transport.closing is None:
                await asyncio.sleep(0.001)
        assert reader.transport.closing == (code, "the event log cannot be read")
        reads = log.reads
        note(emitter, 3)
        await asyncio.sleep(0.01)
        assert log.reads == reads


async def test_at_most_so_many_cursors_replay_at_a_time() -> None:
    """The others wait for their turn, and everybody gets everything."""

    class CountingLog(MemoryLog):
        """A log that yields in the middle of a read and counts who reads."""

        reading = most = 0

        async def read(self, *args: Any, **options: Any) -> Page:
            self.reading += 1
            self.most = max(self.most, self.reading)
            await asyncio.sleep(0)
            self.reading -= 1
            return await super().read(*args, **options)

    log = CountingLog()
    async with WebSocketBridgeFactory(log=log, limits=Limits(replaying=3)) as factory:
        emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        note(emitter, 2000)
        readers = [Reader(factory) for _ in range(20)]
        for reader in readers:
            await reader.open()
        for reader in readers:
            await reader.until_seq(2000)
        assert log.most == 3
        assert all(reader.seqs == list(range(1, 2001)) for reader in readers)


async def test_tails_of_a_node_are_bounded() -> None:
    """Over the limit the longest quiet tails go, and their readers miss nothing."""
    async with WebSocketBridgeFactory(
        log="memory://?private", limits=Limits(tail_bytes=20_000)
    ) as factory:
        reader = Reader(factory)
        await reader.open()
        emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        note(emitter, 500)
        await reader.until_seq(500)
        stream = factory.log.stream("user_123")
        assert stream.tail is not None
        assert stream.tail.bytes_held > 20_000
        factory.manager.tick(0.0, 0.0)
        assert stream.tail.bytes_held == 0
        note(emitter, 10)
        await reader.until_seq(510)
        assert reader.seqs == list(range(1, 511))


async def test_a_page_of_large_records_stays_within_its_limit() -> None:
    """Records that were compacted to almost 64 KiB come one a page, not two."""
    factory = WebSocketBridgeFactory(log="memory://?private")
    emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    emitter.agent_started()
    for _ in range(60):
        emitter.agent_delta("x" * 4000)
    emitter.agent_completed()
    await factory.log.sweep()
    place = await factory.log.locate("user_123", "start")
    sizes = []
    while True:
        page = await factory.log.read("user_123", place, limit_bytes=65536)
        sizes.append(sum(record.size_bytes for record in page.records))
        place = page.place
        if page.is_at_head:
            break
    assert max(sizes) <= 65536
    assert len(sizes) >= 4

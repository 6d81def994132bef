"""A reader that stops reading, beside others that do not."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from catenary import UserWebSocketEmitter
from catenary.eventlog.base import EventLog
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import Retention
from catenary.eventlog.redis.log import RedisLog
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.limits import Limits
from catenary.transport import HIGH_WATER_BYTES
from tests.e2e.support import Bridge, Reader, bridge, say
from tests.redis_server import url_of_its_own

KINDS = ("memory", "sqlite", "redis")
READERS = 50
SMALL_BUFFER = 4096
DELTA_BYTES = 4096
TURN_BYTES = 64 * 1024
RETAINED_BYTES = 2 * 1024 * 1024
EMITTED_EVENTS = 1500
# What a reader's absence may cost beside its buffer; all that it misses is 6 MB.
SPARE_BYTES = 2 * 1024 * 1024
MANY = Limits(connections_per_user=100)


def log_of(kind: str, directory: Path, **retention: int) -> EventLog:
    kept = Retention(**retention) if retention else None
    if kind == "memory":
        return MemoryLog(retention=kept)
    if kind == "redis":
        return RedisLog(url_of_its_own(), retention=kept)
    return SqliteLog(directory / "events.db", retention=kept)


class Watch:
    """What the server holds for its connections, looked at again and again."""

    def __init__(self, running: Bridge) -> None:
        self._manager = running.factory.manager
        self.most_buffered = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _look(self) -> None:
        while True:
            for connection in self._manager._all():
                self.most_buffered = max(self.most_buffered, connection.transport.buffered_bytes)
            await asyncio.sleep(0.005)


@contextmanager
def memory_traced() -> Iterator[None]:
    """Count what Python allocates: what is resident depends on what ran in this process before."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def allocated_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


class Latencies:
    """How long events are under way, from the call of the verb to a reader."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def note(self, event: dict[str, Any]) -> None:
        begun, _, _ = event["data"].get("delta", "").partition(" ")
        if begun:
            self.taken.append(time.perf_counter() - float(begun))

    def at(self, share: float) -> float:
        self.taken.sort()
        return self.taken[int(len(self.taken) * share)]


def words(number: int) -> str:
    """Return a piece of text that says when it was emitted, and which one it is."""
    return f"{time.perf_counter()} {number} ".ljust(DELTA_BYTES, "x")


async def speak(emitter: UserWebSocketEmitter, count: int) -> str:
    """Emit a run of deltas, at a pace that readers can follow; return the digest of what was said."""
    said = hashlib.sha256()
    emitter.agent_started("writer")
    for number in range(count):
        text = words(number)
        said.update(text.encode())
        await emitter.agent_delta(text, message_id="m1")
        await asyncio.sleep(0.001)
    await emitter.agent_completed()
    return said.hexdigest()


def heard(reader: Reader) -> str:
    """Return the digest of the text that a reader got."""
    deltas = (event["data"]["delta"] for event in reader.of_type("agent_delta"))
    return hashlib.sha256("".join(deltas).encode()).hexdigest()


@asynccontextmanager
async def crowd(running: Bridge) -> AsyncIterator[tuple[list[Reader], Latencies]]:
    """50 readers of one user that read all the time."""
    latencies = Latencies()
    readers = []
    for _ in range(READERS):
        reader = await Reader.open(running, "user_123", after="now", keep=False)
        reader.on_event = latencies.note
        readers.append(reader)
    yield readers, latencies
    for reader in readers:
        assert reader.faults == []
        assert reader.gaps == []
        reader.close()


async def _until_all(readers: list[Reader], seq: int) -> None:
    for reader in readers:
        await reader.until(lambda reader=reader: reader.reached >= seq)  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_that_stops_delays_nobody(kind: str, tmp_path: Path) -> None:
    """The latency of the others stays as it was; when it reads again it gets everything."""
    async with bridge(log_of(kind, tmp_path), limits=MANY) as running:
        async with crowd(running) as (readers, before):
            await speak(running.emitter("user_123", run_id="r1"), EMITTED_EVENTS)
            await _until_all(readers, EMITTED_EVENTS + 2)
        async with crowd(running) as (readers, latencies), Watch(running) as watch:
            slow = await Reader.open(running, "user_123", after="now", receive_buffer=SMALL_BUFFER)
            slow.stop_reading()
            said = await speak(running.emitter("user_123", run_id="r2"), EMITTED_EVENTS)
            head = 2 * (EMITTED_EVENTS + 2)
            await _until_all(readers, head)
            missing = head - slow.reached
            slow.read_on()
            await slow.until(lambda: slow.reached >= head)
        assert missing > EMITTED_EVENTS // 2, "it was far behind"
        assert slow.faults == []
        assert slow.gaps == []
        assert heard(slow) == said
    say(
        f"{kind}: {EMITTED_EVENTS * DELTA_BYTES / 1e6:.1f} MB beside a stopped reader, "
        f"buffered {watch.most_buffered}; latency P50 "
        f"{latencies.at(0.5) * 1000:.2f} ms ({before.at(0.5) * 1000:.2f} ms), P99 "
        f"{latencies.at(0.99) * 1000:.2f} ms ({before.at(0.99) * 1000:.2f} ms)"
    )
    assert watch.most_buffered <= HIGH_WATER_BYTES + TURN_BYTES + 2 * DELTA_BYTES
    assert latencies.at(0.5) < 2 * before.at(0.5) + 0.01
    assert latencies.at(0.99) < 3 * before.at(0.99) + 0.05


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_that_stops_costs_no_memory(kind: str, tmp_path: Path) -> None:
    """However much it misses, what is held for it is its buffer: the log holds the rest."""
    # What is kept is full before memory is looked at: what grows further is held for a reader.
    log = log_of(kind, tmp_path, events=EMITTED_EVENTS)
    async with bridge(log) as running:
        with memory_traced():
            await speak(running.emitter("user_123", run_id="r1"), 2 * EMITTED_EVENTS)
            slow = await Reader.open(running, "user_123", after="now", receive_buffer=SMALL_BUFFER)
            slow.stop_reading()
            await running.factory.log.sweep()
            calm = allocated_bytes()
            await speak(running.emitter("user_123", run_id="r2"), EMITTED_EVENTS)
            await running.factory.log.sweep()
            grown = allocated_bytes() - calm
    say(f"{kind}: memory +{grown / 1e6:.2f} MB")
    assert slow.reached < 2 * EMITTED_EVENTS + EMITTED_EVENTS // 2, "it was far behind"
    assert grown < SPARE_BYTES


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_that_stops_for_too_long_is_told(kind: str, tmp_path: Path) -> None:
    """What was dropped meanwhile is one gap with its bounds; the rest follows, dense."""
    async with bridge(log_of(kind, tmp_path, events=400, bytes=RETAINED_BYTES)) as running:
        emitter = running.emitter("user_123")
        slow = await Reader.open(running, "user_123", receive_buffer=SMALL_BUFFER)
        slow.stop_reading()
        last = 0
        for number in range(2000):
            receipt = emitter.custom("app.note", {"n": number, "pad": "x" * DELTA_BYTES})
            if number % 50 == 49:
                last = (await receipt).seq
        await running.factory.log.sweep()
        slow.read_on()
        await slow.until(lambda: slow.reached == last)
        assert slow.faults == []
        (gap,) = slow.gaps
        assert gap["reason"] == "retention"
        lost_after = int(gap["after"].partition(":")[2])
        resumed_at = int(gap["resumes_at"].partition(":")[2])
        numbers = [event["data"]["n"] for event in slow.received]
        kept = [n for n in range(2000) if not lost_after <= n < resumed_at - 1]
        assert numbers == kept
        assert 0 < len(kept) < 2000


@pytest.mark.parametrize("kind", KINDS)
async def test_a_dead_reader_is_let_go(kind: str, tmp_path: Path) -> None:
    """One that takes nothing and says nothing is cut after 2.5 heartbeats; it may come back."""
    limits = Limits(heartbeat_interval=0.4)
    async with bridge(log_of(kind, tmp_path), limits=limits) as running:
        emitter = running.emitter("user_123")
        dead = await Reader.open(running, "user_123", receive_buffer=SMALL_BUFFER)
        alive = await Reader.open(running, "user_123")
        dead.stop_reading()
        for number in range(1000):
            emitter.custom("app.note", {"n": number, "pad": "x" * DELTA_BYTES})
        began = time.monotonic()
        await alive.until(lambda: running.factory.manager.connection_count == 1)
        assert time.monotonic() - began < 2.0
        await alive.until(lambda: alive.reached == 1000)
        dead.read_on()
        await dead.ended()
        place = f"{alive.head['position'].partition(':')[0]}:{dead.reached}"
        back = await Reader.open(running, "user_123", after=place)
        await back.until(lambda: back.reached == 1000)
        assert [dead.faults, back.faults, back.gaps] == [[], [], []]
        numbers = [event["data"]["n"] for event in (*dead.received, *back.received)]
        assert numbers == list(range(1000))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_newcomer_that_does_not_read_costs_little(kind: str, tmp_path: Path) -> None:
    """Of all that it missed only what its socket and one turn hold is taken from the log."""
    async with bridge(log_of(kind, tmp_path)) as running:
        emitter = running.emitter("user_123")
        for number in range(2000):
            receipt = emitter.custom("app.note", {"n": number, "pad": "x" * DELTA_BYTES})
            if number % 100 == 99:
                await receipt
        async with Watch(running) as watch:
            idle = await Reader.open(running, "user_123", receive_buffer=SMALL_BUFFER)
            idle.stop_reading()
            await asyncio.sleep(0.2)
            assert idle.reached < 1000
            idle.read_on()
            await idle.until(lambda: idle.reached == 2000)
        assert (idle.faults, idle.gaps) == ([], [])
        say(f"{kind}: buffered {watch.most_buffered}")
        assert watch.most_buffered <= HIGH_WATER_BYTES + TURN_BYTES + 2 * DELTA_BYTES

"""Emitting from many threads and loops at once, while readers are connected."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.support import Bridge, Calls, Reader, bridge, log_url, say
from tests.eventlog.files import locked

KINDS = ("memory", "sqlite", "redis")
THREADS = 50
LOOPS = 3
EACH = 60
TASKS_OF_A_LOOP = 4


@pytest.fixture(params=[0.005, 1e-5])
def interval(request: pytest.FixtureRequest) -> Iterator[float]:
    """How often threads interrupt each other: as Python does it, or nearly anywhere."""
    former = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield request.param
    sys.setswitchinterval(former)


class Crowd:
    """50 threads and 3 event loops that begin at the same moment."""

    def __init__(self, emit: Callable[[str, int], None]) -> None:
        self._emit = emit
        self._begin = threading.Barrier(THREADS + LOOPS)
        self.senders = [f"thread {n}" for n in range(THREADS)]
        self.senders += [f"loop {n} task {m}" for n in range(LOOPS) for m in range(TASKS_OF_A_LOOP)]
        self._threads = [
            threading.Thread(target=self._in_thread, args=(name,), daemon=True)
            for name in self.senders[:THREADS]
        ]
        self._threads += [
            threading.Thread(target=self._in_loop, args=(f"loop {n}",), daemon=True)
            for n in range(LOOPS)
        ]

    def _in_thread(self, sender: str) -> None:
        self._begin.wait()
        for number in range(EACH):
            self._emit(sender, number)

    def _in_loop(self, name: str) -> None:
        self._begin.wait()
        asyncio.run(self._loop(name))

    async def _loop(self, name: str) -> None:
        async def task(sender: str) -> None:
            for number in range(EACH):
                self._emit(sender, number)
                await asyncio.sleep(0)

        await asyncio.gather(*(task(f"{name} task {m}") for m in range(TASKS_OF_A_LOOP)))

    async def emit_all(self) -> None:
        """Let them emit, and wait for their ends while this loop goes on."""
        for thread in self._threads:
            thread.start()
        while any(thread.is_alive() for thread in self._threads):
            await asyncio.sleep(0.01)

    @property
    def count(self) -> int:
        return len(self.senders) * EACH


async def _received(readers: Sequence[Reader], counts: Sequence[int]) -> None:
    for reader, count in zip(readers, counts, strict=True):
        await reader.until(lambda reader=reader, count=count: reader.reached >= count)  # type: ignore[misc]
        assert reader.faults == []
        assert reader.gaps == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_crowd_emits_for_one_user(kind: str, interval: float, tmp_path: Path) -> None:
    """All readers see one dense order in which no call comes before one that had returned."""
    calls = Calls()
    async with bridge(log_url(kind, tmp_path)) as running:
        shared = running.emitter("user_123")
        readers = [await Reader.open(running, "user_123") for _ in range(3)]
        crowd = Crowd(lambda sender, number: calls.emit(shared, sender, number))
        await crowd.emit_all()
        late = await Reader.open(running, "user_123", after="start")
        await _received([*readers, late], [crowd.count] * 4)
        for reader in (*readers, late):
            await calls.check(reader.received)
    say(
        f"{kind}, one user, {interval} s: {crowd.count} calls, {calls.longest * 1000:.1f} ms at most"
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_crowd_emits_for_many_users(kind: str, interval: float, tmp_path: Path) -> None:
    """Every user's readers see that user's events, dense, and each sender's order."""
    users = [f"user_{n}" for n in range(10)]
    calls = {user: Calls() for user in users}
    async with bridge(log_url(kind, tmp_path)) as running:
        emitters = {user: running.emitter(user) for user in users}

        def emit(sender: str, number: int) -> None:
            user = users[number % len(users)]
            calls[user].emit(emitters[user], sender, number // len(users))

        readers = [await Reader.open(running, user) for user in users]
        crowd = Crowd(emit)
        await crowd.emit_all()
        await _received(readers, [crowd.count // len(users)] * len(users))
        for user, reader in zip(users, readers, strict=True):
            await calls[user].check(reader.received)
    longest = max(each.longest for each in calls.values())
    say(f"{kind}, ten users, {interval} s: {crowd.count} calls, {longest * 1000:.1f} ms at most")


@pytest.mark.parametrize("kind", KINDS)
async def test_receipts_can_be_awaited_anywhere(kind: str, tmp_path: Path) -> None:
    """Threads and loops that wait for each receipt all go on; nobody waits for ever."""
    calls = Calls()
    async with bridge(log_url(kind, tmp_path)) as running:
        emitter = running.emitter("user_123")
        reader = await Reader.open(running, "user_123")

        def emit_and_wait(sender: str) -> None:
            for number in range(10):
                calls.emit(emitter, sender, number)
                calls.receipts[sender, number].result(10)

        async def emit_and_await(sender: str) -> None:
            for number in range(10):
                calls.emit(emitter, sender, number)
                async with asyncio.timeout(10):
                    await calls.receipts[sender, number]

        await asyncio.gather(
            *(asyncio.to_thread(emit_and_wait, f"thread {n}") for n in range(4)),
            *(asyncio.to_thread(asyncio.run, emit_and_await(f"loop {n}")) for n in range(2)),
            *(emit_and_await(f"task {n}") for n in range(4)),
        )
        await _received([reader], [100])
        await calls.check(reader.received)


async def test_a_stalled_store_blocks_no_verb(tmp_path: Path) -> None:
    """While another program holds SQLite's lock for a second, no call of a verb waits for it."""
    calls = Calls()
    is_over = threading.Event()
    async with bridge(log_url("sqlite", tmp_path)) as running:
        emitter = running.emitter("user_123")
        reader = await Reader.open(running, "user_123")
        calls.emit(emitter, "first", 0)
        await calls.receipts["first", 0]

        def emit_until_over(sender: str) -> None:
            number = 0
            while not is_over.wait(0.01):
                calls.emit(emitter, sender, number)
                number += 1

        with locked(tmp_path / "events.db"):
            work = [asyncio.to_thread(emit_until_over, f"thread {n}") for n in range(4)]
            working = asyncio.gather(*work)
            await _emit_for_a_second(running, calls)
            assert reader.reached == 1, "nothing is delivered that is not committed"
        is_over.set()
        await working
        await _received([reader], [len(calls.made)])
        await calls.check(reader.received)
    say(f"1 s stall: {len(calls.made)} calls, {calls.longest * 1000:.1f} ms at most")
    assert calls.longest < 0.8, "a call waited for the store, which stood still for 1 s"


async def _emit_for_a_second(running: Bridge, calls: Calls) -> None:
    emitter = running.emitter("user_123")
    end = asyncio.get_running_loop().time() + 1.0
    number = 0
    while asyncio.get_running_loop().time() < end:
        calls.emit(emitter, "loop", number)
        number += 1
        await asyncio.sleep(0.01)

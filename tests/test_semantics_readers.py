from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from catenary import UserWebSocketContext, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.errors import CloseCode
from catenary.eventlog.base import EventLog
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.stream import Stream, Watcher
from catenary.limits import Limits
from tests.test_connection import Reader, note


def emitter_of(factory: WebSocketBridgeFactory) -> UserWebSocketEmitter:
    return factory.get_user_emitter(UserWebSocketContext(user_id="user_123", thread_id="t1"))


def watchers(factory: WebSocketBridgeFactory) -> int:
    return len(factory.log.stream("user_123").watchers)


# Loops that end


def test_a_loop_that_ended_with_its_readers_open_stops_no_emitter() -> None:
    """Emitting goes on, on its thread and on others; a new loop serves, and forgets the old."""
    factory = WebSocketBridgeFactory(log="memory://?private")
    emitter = emitter_of(factory)

    async def abandon() -> None:
        await Reader(factory).open()

    asyncio.run(abandon())
    note(emitter, 3)
    emitting = threading.Thread(target=note, args=(emitter, 3))
    emitting.start()
    emitting.join()

    async def serve() -> None:
        reader = Reader(factory)
        await reader.open()
        await reader.until_seq(6)
        assert reader.seqs == [1, 2, 3, 4, 5, 6]
        assert watchers(factory) == 1

    asyncio.run(serve())


class SlowLog(MemoryLog):
    """A log whose watching takes until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def watch(self, log_id: str, watcher: Watcher) -> Stream:
        await self.go_on.wait()
        return await super().watch(log_id, watcher)


async def test_a_reader_that_gave_up_while_it_joined_leaves_no_watcher() -> None:
    """Whoever was cancelled in the middle of its place leaves nothing behind; others stay."""
    log = SlowLog()
    factory = WebSocketBridgeFactory(log=log)
    opening = asyncio.create_task(Reader(factory).open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    log.go_on.set()
    async with asyncio.timeout(5):
        for _ in range(5):
            await asyncio.sleep(0)
    assert watchers(factory) == 0
    reader = Reader(factory)
    await reader.open()
    assert watchers(factory) == 1
    reader.transport.die()
    assert watchers(factory) == 0


async def test_a_reader_that_breaks_harms_no_other(
    factory: WebSocketBridgeFactory,
    emitter: UserWebSocketEmitter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is closed with 1011; those after it get the same turn's events."""
    broken, other = Reader(factory), Reader(factory)
    for reader in (broken, other):
        await reader.open()
        await reader.until(2)

    class Breaking:
        def __getattr__(self, name: str) -> Any:
            return getattr(other.transport, name)

        def write(self, data: bytes) -> None:
            raise ZeroDivisionError

        def close(self, code: int, reason: str) -> None:
            broken.transport.close(code, reason)

    broken.connection.transport = Breaking()
    note(emitter)
    await other.until_seq(1)
    assert other.seqs == [1]
    assert broken.transport.closing is not None
    assert broken.transport.closing[0] == CloseCode.INTERNAL
    assert "ZeroDivisionError" in caplog.text


async def test_a_long_replay_lets_live_readers_have_their_turns(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Between two pages of a reader that is far behind, others are served."""
    note(emitter, 9000)
    behind, live = Reader(factory), Reader(factory)
    await live.open("now")
    await live.until(2)
    await behind.open("start")
    await asyncio.sleep(0)
    note(emitter)
    await live.until_seq(9001)
    assert 0 < behind.connection.place.seq < 9001
    await behind.until_seq(9001)
    assert behind.seqs == list(range(1, 9002))


# Several loops


class OtherLoop:
    """A loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def other() -> Any:
    loop = OtherLoop()
    yield loop
    loop.end()


async def opened(factory: WebSocketBridgeFactory) -> Reader:
    reader = Reader(factory)
    await reader.open("now")
    factory.manager.add(reader.connection, "user_123")
    threads: list[int] = []
    closing = reader.transport.close

    def close(code: int, reason: str) -> None:
        threads.append(threading.get_ident())
        closing(code, reason)

    reader.transport.close = close  # type: ignore[method-assign]
    reader.threads = threads  # type: ignore[attr-defined]
    return reader


async def closed(reader: Reader) -> tuple[int, bool]:
    """Return the code that a reader was closed with, and whether on its own loop's thread."""
    async with asyncio.timeout(5):
        while reader.transport.closing is None:
            await asyncio.sleep(0.001)
    return reader.transport.closing[0], reader.threads != [threading.get_ident()]  # type: ignore[attr-defined]


async def test_readers_of_two_loops_get_the_same(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter, other: OtherLoop
) -> None:
    """One log, two loops, one order."""
    here, there = await opened(factory), await other.run(opened(factory))
    note(emitter, 500)
    await here.until_seq(500)
    await other.run(there.until_seq(500))
    assert here.seqs == there.seqs == list(range(1, 501))


async def test_a_connection_is_closed_on_its_own_loop(other: OtherLoop) -> None:
    """Too many, disconnected, draining: whoever decides it, the loop of the connection does it."""
    factory = WebSocketBridgeFactory(log="memory://?private", limits=Limits(connections_per_user=1))
    there = await other.run(opened(factory))
    here = await opened(factory)
    assert await closed(there) == (CloseCode.TOO_MANY_CONNECTIONS, True)
    await other.run(asyncio.sleep(0))
    there = await other.run(opened(factory))
    assert await closed(here) == (CloseCode.TOO_MANY_CONNECTIONS, False)
    await factory.manager.say_closing("draining", within=1)
    assert await closed(there) == (CloseCode.RESTARTING, True)


async def test_heartbeats_come_on_every_loop(
    factory: WebSocketBridgeFactory, other: OtherLoop
) -> None:
    """The one who keeps the time lets each loop do what is due there."""
    there = await other.run(opened(factory))
    for _ in range(6):
        factory.manager.tick(asyncio.get_running_loop().time(), 0)
        await other.run(asyncio.sleep(0))
    assert there.types[-1] == "heartbeat"


async def test_connections_of_an_ended_loop_do_not_hinder() -> None:
    """Disconnecting and draining pass over what ended with its loop."""
    factory = WebSocketBridgeFactory(log="memory://?private")
    ended = OtherLoop()
    await ended.run(opened(factory))
    ended.end()
    assert await factory.manager.disconnect("user_123") == 1
    await factory.manager.say_closing("draining", within=1)
    factory.manager.tick(asyncio.get_running_loop().time(), 0)


async def test_one_that_closes_already_counts_no_more(factory: WebSocketBridgeFactory) -> None:
    """The limit is one of connections that are served."""
    manager = WebSocketBridgeFactory(log=factory.log, limits=Limits(connections_per_user=2)).manager
    readers = [Reader(factory) for _ in range(3)]
    manager.add(readers[0].connection, "user_123")
    manager.add(readers[1].connection, "user_123")
    readers[0].connection.close(CloseCode.TOKEN_EXPIRED, "")
    manager.add(readers[2].connection, "user_123")
    assert [r.transport.closing is not None for r in readers] == [True, False, False]


async def test_a_tick_that_fails_for_one_is_made_for_the_others(
    factory: WebSocketBridgeFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Its failure is logged; the next gets its heartbeat."""
    broken, fine = await opened(factory), await opened(factory)
    broken.connection.lives_until = "soon"  # type: ignore[assignment]
    for _ in range(6):
        factory.manager.tick(asyncio.get_running_loop().time(), 0)
    assert fine.types[-1] == "heartbeat"
    assert any(record.levelno == logging.ERROR for record in caplog.records)


# Erasing and terms under live readers


async def test_live_readers_go_on_over_an_erased_thread(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A reader at the head misses and doubles nothing; one behind sees the numbers, not the text."""
    live, behind = Reader(factory), Reader(factory)
    await live.open()
    note(emitter, 3)
    await live.until_seq(3)
    await behind.open()
    behind.transport.stall()
    await factory.erase("user_123", "t1")
    note(emitter, 2)
    await live.until_seq(5)
    assert live.seqs == [1, 2, 3, 4, 5]
    late = Reader(factory)
    await late.open()
    await late.until_seq(5)
    assert late.types == ["connected", "erased", "app.note", "app.note", "live"]
    assert late.messages[1]["seq"] == 3
    assert late.messages[1]["from_seq"] == 1
    assert behind.connection.place.seq in {0, 3, 5}


async def test_a_new_term_while_a_reader_replays_is_told_once(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The rest of the former term, one gap at the boundary, then the new one; live once."""
    note(emitter, 3000)
    reader = Reader(factory)
    await reader.open()
    await asyncio.sleep(0)
    await factory.log.new_term("user_123")
    note(emitter, 2)
    await reader.until_seq(3002)
    await reader.until(3005)
    assert reader.seqs == list(range(1, 3003))
    assert reader.types.count("gap") == 1
    assert reader.types.count("live") == 1
    assert reader.types[-1] == "live"


async def test_a_reader_within_a_range_that_is_compacted_gets_exactly_the_rest(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The range is joined while its reader is in the middle of it."""
    run = emitter.run()
    async with run:
        for number in range(2000):
            run.delta(f"{number},")
        reader = Reader(factory)
        await reader.open(f"{(await factory.log.head('user_123')).epoch}:700")
    await factory.log.sweep()
    await reader.until_seq(2002)
    text = "".join(m["data"]["delta"] for m in reader.messages if m["type"] == "agent_delta")
    assert text == "".join(f"{number}," for number in range(699, 2000))
    firsts = [m.get("from_seq", m["seq"]) for m in reader.messages if "seq" in m]
    assert firsts == [701, *(seq + 1 for seq in reader.seqs[:-1])]


# The factory's life


class OpeningLog(MemoryLog):
    """A log that opens when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def start(self) -> None:
        await self.go_on.wait()


async def test_a_drain_while_the_start_is_under_way_holds() -> None:
    """What was asked to drain does not begin to serve."""
    log = OpeningLog()
    factory = WebSocketBridgeFactory(log=log, run_drain_timeout=0.1)
    starting = asyncio.create_task(factory.start())
    await asyncio.sleep(0)
    await factory.drain()
    log.go_on.set()
    await starting
    assert factory.problem() == "draining"
    await factory.stop()
    await factory.start()
    assert factory.problem() is None
    await factory.stop()


async def test_factories_that_share_a_log_are_both_told_of_ends() -> None:
    """Each one's handlers get every run, though one has none for a while, fails, or leaves."""
    log: EventLog = MemoryLog()
    one, two, silent = (WebSocketBridgeFactory(log=log) for _ in range(3))
    heard: dict[str, list[str]] = {"one": [], "two": []}
    one.on_run_end(lambda state: heard["one"].append(state.run_id))
    two.on_run_end(lambda state: heard["two"].append(state.run_id))

    async def until(**counts: int) -> None:
        async with asyncio.timeout(5):
            while {name: len(heard[name]) for name in counts} != counts:
                await asyncio.sleep(0)

    async with one, silent:
        async with two:
            for number in range(250):
                async with emitter_of(one).run(run_id=f"r{number}"):
                    pass
            await until(one=250, two=250)
        async with emitter_of(one).run(run_id="last"):
            pass
        await until(one=251)
    assert len(set(heard["one"])) == 251
    assert await log.unreported_runs(10) == []


async def test_an_abandoned_reading_is_unsubscribed(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Leaving the loop half-way, and cancelling who waits."""
    note(emitter, 2)
    async for _ in factory.events("user_123", follow=True):
        break

    async def follow() -> None:
        async for _ in factory.events("user_123", follow=True):
            pass

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    async with asyncio.timeout(5):
        while watchers(factory):
            await asyncio.sleep(0)

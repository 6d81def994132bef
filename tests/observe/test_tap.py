"""A close look at one connection, and a sample of many."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest_asyncio

from catenary import UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.auth import Identity
from catenary.connection import Connection
from catenary.observe.follower import Fault
from catenary.observe.sample import Sample
from catenary.observe.tap import CAPTURE_BYTES, CloseLook, Tap
from catenary.session import Session
from catenary.transport import HoldingTransport, StallingTransport
from catenary.validate.threads import ThreadMonitor

ME = Identity(user_id="user_123")


@pytest_asyncio.fixture
async def factory() -> AsyncIterator[WebSocketBridgeFactory]:
    """A bridge whose own monitors are off."""
    async with WebSocketBridgeFactory("memory://?private", monitoring=None) as bridge:
        yield bridge


async def connected(factory: WebSocketBridgeFactory, after: str = "now") -> Connection:
    """A connection that reads, on a transport without a socket."""
    hub, manager = factory.manager.hub(), factory.manager
    connection = Connection(
        hub,
        Session(f"c_{manager.connection_count}", factory.limits, now=0, is_authenticated=True),
        on_message=lambda *_: None,
        on_closed=lambda connection, *_: manager.remove(connection, "user_123"),
    )
    connection.transport = StallingTransport(connection)
    stream = await connection.find_place(ME, log_id="user_123", after=after, thread_ids=None)
    connection.prepared = stream
    manager.add(connection, "user_123")
    connection.begin()
    return connection


def socket_of(connection: Connection) -> StallingTransport:
    transport = connection.transport
    while not isinstance(transport, StallingTransport):
        transport = transport.behind  # type: ignore[attr-defined]
    return transport


async def written(connection: Connection, emitter: UserWebSocketEmitter) -> None:
    """Let everything that was emitted be written."""
    async with asyncio.timeout(5):
        while connection.place.seq < emitter.stream.head:
            await asyncio.sleep(0)


async def test_what_is_written_is_seen_and_comes_through(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The peer gets every byte, and the look every frame, from the place where it began."""
    emitter.custom("app.note")
    connection = await connected(factory, after="start")
    await written(connection, emitter)
    before = len(socket_of(connection).written)
    look = CloseLook(connection, since=0)
    look.begin()
    for _ in range(3):
        emitter.custom("app.note")
        await written(connection, emitter)
    seen = list(look.frames())
    assert [each.is_event for each in seen] == [True] * 3
    assert [each.finding for each in seen] == [None] * 3
    assert all(each.latency is not None and each.latency < 1 for each in seen)
    assert len(socket_of(connection).written) > before
    assert list(look.frames()) == []


async def test_afterwards_the_transport_is_the_connections_own(
    factory: WebSocketBridgeFactory,
) -> None:
    """Also where it was closed meanwhile, or never began to be looked at."""
    connection = await connected(factory)
    transport = connection.transport
    look = CloseLook(connection, since=0)
    look.begin()
    assert isinstance(connection.transport, Tap)
    look.end()
    assert connection.transport is transport
    late = CloseLook(connection, since=0)
    late.end()
    late.begin()
    assert connection.transport is transport
    connection.closed(1006, "")
    CloseLook(connection, since=0).begin()
    assert connection.transport is transport


async def test_under_another_transport_it_passes_everything_on(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """One that was put in front later stays there."""
    connection = await connected(factory)
    look = CloseLook(connection, since=0)
    look.begin()
    holding = connection.transport = HoldingTransport(connection.transport, connection)
    look.end()
    assert connection.transport is holding
    size = len(socket_of(connection).written)
    emitter.custom("app.note")
    await written(connection, emitter)
    assert len(socket_of(connection).written) > size
    assert list(look.frames()) == []


async def test_a_full_look_keeps_no_more(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """What was kept until then is whole, and the connection goes on as ever."""
    connection = await connected(factory)
    look = CloseLook(connection, since=0)
    look.begin()
    for _ in range(40):
        emitter.custom("app.note", {"pad": "x" * 10_000})
        await written(connection, emitter)
    assert look.connection is None
    seen = list(look.frames())
    assert 0 < len(seen) * 10_000 <= CAPTURE_BYTES + 10_000
    assert {each.finding for each in seen} == {None}
    assert len(socket_of(connection).written) > 400_000


async def test_a_look_keeps_nothing_alive(factory: WebSocketBridgeFactory) -> None:
    """Neither the connection nor its transport, so the monitors leave no trace in memory."""
    connection = await connected(factory)
    look = CloseLook(connection, since=0)
    look.begin()
    dead: list[weakref.ref[object]] = [
        weakref.ref(connection), weakref.ref(connection.transport),
    ]  # fmt: skip
    connection.closed(1006, "")
    del connection
    gc.collect()
    assert [each() for each in dead] == [None, None]
    assert look.connection is None
    look.end()


async def test_what_is_late_because_of_its_reader_says_nothing(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A socket that was full, and what follows it, are the reader's affair."""
    connection = await connected(factory)
    socket = socket_of(connection)
    look = CloseLook(connection, since=0)
    look.begin()
    socket.stall()
    for _ in range(5):
        emitter.custom("app.note", {"pad": "x" * 60_000})
        await asyncio.sleep(0)
    assert connection.transport.is_paused
    assert [each.latency for each in look.frames()] == [None] * 2
    socket.drain()
    await written(connection, emitter)
    assert {each.latency for each in look.frames()} == {None}
    emitter.custom("app.note")
    await written(connection, emitter)
    assert [each.latency is None for each in look.frames()] == [False]


async def test_what_was_emitted_before_says_nothing_of_latency(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A newcomer reads what is old."""
    emitter.custom("app.note")
    await asyncio.sleep(0.002)
    connection = await connected(factory, after="start")
    look = CloseLook(connection, since=0)
    look.begin()
    await written(connection, emitter)
    assert [(each.is_event, each.latency) for each in look.frames()] == [
        (True, None),
        (False, None),
    ]


async def test_a_fault_below_the_connection_is_found(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A cursor that is moved on skips what lies between."""
    connection = await connected(factory)
    look = CloseLook(connection, since=0)
    look.begin()
    connection.place = connection.place._replace(seq=connection.place.seq + 1)
    emitter.custom("app.note")
    emitter.custom("app.note")
    await written(connection, emitter)
    findings = [each.finding for each in look.frames() if each.finding is not None]
    assert [finding.fault for finding in findings] == [Fault.HOLE]


# A sample of many


def tapped(connections: list[Connection]) -> set[str]:
    return {
        connection.session.connection_id
        for connection in connections
        if isinstance(connection.transport, Tap)
    }


async def test_a_sample_is_bounded_and_changes(factory: WebSocketBridgeFactory) -> None:
    """Three of ten at a time; others when their time is over; in the end each had its turn."""
    connections = [await connected(factory) for _ in range(10)]
    sample = Sample(factory.manager, size=3, time=30)
    sample.renew(0)
    first = tapped(connections)
    assert len(first) == 3
    sample.renew(29)
    assert tapped(connections) == first
    had_a_turn = set(first)
    now = 0
    while len(had_a_turn) < 10:
        now += 30
        assert now < 30 * 200, f"{had_a_turn} and no other"
        sample.renew(now)
        assert len(tapped(connections)) == 3
        had_a_turn |= tapped(connections)
    sample.end()
    assert tapped(connections) == set()
    assert sample.looks == []


async def test_who_goes_makes_room(factory: WebSocketBridgeFactory) -> None:
    """A connection that closed is replaced at the next look; none is looked at twice at a time."""
    connections = [await connected(factory) for _ in range(3)]
    sample = Sample(factory.manager, size=2, time=30)
    sample.renew(0)
    gone = next(each for each in connections if isinstance(each.transport, Tap))
    gone.closed(1006, "")
    sample.renew(1)
    left = [each for each in connections if each is not gone]
    assert len(tapped(left)) == 2
    sample.renew(2)
    assert all(isinstance(socket_of(each), StallingTransport) for each in left)
    assert [type(each.transport.behind) for each in left] == [StallingTransport] * 2  # type: ignore[attr-defined]


async def test_connections_of_another_loop_are_tapped_there(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A loop in another thread has its own connections; they are changed on it alone."""
    sample = Sample(factory.manager, size=2, time=30)
    monitor = ThreadMonitor()
    is_read, is_ready = asyncio.Event(), asyncio.Event()
    here = asyncio.get_running_loop()

    async def elsewhere() -> int:
        connection = await connected(factory)
        done = asyncio.Event()
        loops.append((asyncio.get_running_loop(), done))
        here.call_soon_threadsafe(is_ready.set)
        async with asyncio.timeout(5):
            while not isinstance(connection.transport, Tap):
                await asyncio.sleep(0.001)
        emitter.custom("app.note")
        await written(connection, emitter)
        here.call_soon_threadsafe(is_read.set)
        await done.wait()
        async with asyncio.timeout(5):
            while isinstance(connection.transport, Tap):
                await asyncio.sleep(0.001)
        connection.closed(1006, "")
        return connection.place.seq

    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    running = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
    await asyncio.wait_for(is_ready.wait(), 5)
    with monitor.watching(factory):
        sample.renew(0)
        await asyncio.wait_for(is_read.wait(), 5)
        (look,) = sample.looks
        assert [each.finding for each in look.frames() if each.is_event] == [None]
        sample.end()
        loop, done = loops[0]
        loop.call_soon_threadsafe(done.set)
        assert await running == 1
    monitor.check()

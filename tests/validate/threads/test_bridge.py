"""A live bridge under the eyes of a monitor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catenary import UserWebSocketContext, WebSocketBridgeFactory
from catenary.connection import Connection
from catenary.errors import UsageError
from catenary.eventlog.tail import Tail
from catenary.manager import WebSocketManager
from catenary.validate.threads import ThreadMonitor, ViolationKind
from tests.e2e.support import Bridge, Calls, Reader, bridge, log_url
from tests.validate.threads.acting import line_of

KINDS = ("memory", "sqlite")
THREADS = 30
EACH = 20


async def emit_from_threads(running: Bridge, calls: Calls) -> None:
    """30 threads emit for one user while the loop goes on."""

    def emit(sender: str) -> None:
        emitter = running.emitter("user_123")
        for number in range(EACH):
            calls.emit(emitter, sender, number)

    threads = [
        threading.Thread(target=emit, args=(f"thread {number}",), daemon=True)
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bridge_that_keeps_its_rules_has_no_violation(kind: str, tmp_path: Path) -> None:
    """30 threads emit, readers come, read and go; the monitor sees all of it, and nothing wrong."""
    monitor = ThreadMonitor()
    calls = Calls()
    async with bridge(log_url(kind, tmp_path)) as running:
        early = await Reader.open(running, "user_123")
        with monitor.watching(running.factory):
            readers = [await Reader.open(running, "user_123") for _ in range(3)]
            foreign = await Reader.open(running, "user_456")
            await emit_from_threads(running, calls)
            late = await Reader.open(running, "user_123", after="start")
            for reader in (early, *readers, late):
                await reader.until(lambda reader=reader: reader.reached >= THREADS * EACH)  # type: ignore[misc]
            foreign.close()
            # From another loop: each is closed on its own all the same.
            await asyncio.to_thread(asyncio.run, running.factory.manager.disconnect("user_123"))
            for reader in (early, *readers, late):
                assert await reader.ended() == 4503
            await running.factory.erase("user_123")
        for reader in (early, *readers, late):
            assert reader.faults == []
            await calls.check(reader.received)
    monitor.check()
    (contention,) = monitor.contention()
    assert contention.name == f"step of {running.factory.log.url}"
    assert contention.acquisitions >= THREADS * EACH


@pytest.mark.parametrize("kind", KINDS)
async def test_afterwards_the_bridge_is_as_it_was(kind: str, tmp_path: Path) -> None:
    """The lock and every class: of old and new streams, tails and connections; and it works."""
    async with bridge(log_url(kind, tmp_path)) as running:
        factory = running.factory
        old = await Reader.open(running, "user_123")
        lock, log_class = factory.log._lock, type(factory.log)
        stream_class = type(factory.log.stream("user_123"))
        with ThreadMonitor().watching(factory):
            assert type(factory.log) is not log_class
            new = await Reader.open(running, "user_456")
            emitters = [running.emitter(user) for user in ("user_123", "user_456", "user_789")]
            for emitter in emitters:
                await emitter.custom("app.note")
            streams = [emitter.stream for emitter in emitters]
            assert all(type(stream) is not stream_class for stream in streams)
            connections = factory.manager.open_connections()
        assert factory.log._lock is lock
        assert type(factory.log) is log_class
        assert type(factory.manager) is WebSocketManager
        assert {type(stream) for stream in streams} == {stream_class}
        assert {type(stream.tail) for stream in streams} == {Tail, type(None)}
        assert len(connections) == 2
        assert {type(connection) for connection in connections} == {Connection}
        for emitter in emitters:
            await emitter.custom("app.note")
        for reader in (old, new):
            await reader.until(lambda reader=reader: reader.reached == 2)  # type: ignore[misc]
            assert reader.faults == []


async def test_who_was_under_way_at_the_end_watches_nothing_more() -> None:
    """A thread may be within a call of a watched log when the block ends."""
    factory = WebSocketBridgeFactory("memory://?private")
    plain = type(factory.log.stream("user_123"))
    with ThreadMonitor().watching(factory):
        under_way = factory.log.stream
    assert type(under_way("user_456")) is plain


def head(stream: Any) -> None:
    stream.head += 0


def tail(stream: Any) -> None:
    stream.tail.clear()


def watchers(stream: Any) -> None:
    stream.remove_watcher(None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", [head, tail, watchers], ids=lambda act: act.__name__)
async def test_a_stream_that_is_changed_without_the_lock_is_found(
    kind: str, act: Callable[[Any], None], tmp_path: Path
) -> None:
    """Whatever of it is changed, with the thread and the place that did it."""
    monitor = ThreadMonitor()
    async with bridge(log_url(kind, tmp_path)) as running:
        await Reader.open(running, "user_123")
        stream = running.factory.log.stream("user_123")
        with monitor.watching(running.factory):
            with running.factory.log._lock:
                act(stream)
            monitor.check()
            rogue = threading.Thread(target=act, args=(stream,), name="rogue")
            rogue.start()
            await asyncio.to_thread(rogue.join)
    assert monitor.violations
    for violation in monitor.violations:
        assert violation.kind is ViolationKind.UNGUARDED
        assert violation.thread == "rogue"
        assert line_of(act, "stream.") in violation.place


async def test_a_stream_that_begins_meanwhile_is_watched_from_its_first_use() -> None:
    """And so is each tail that it gets."""
    monitor = ThreadMonitor()
    async with bridge() as running:
        with monitor.watching(running.factory):
            stream = running.factory.log.stream("user_123")
            await Reader.open(running, "user_123")
            with running.factory.log._lock:
                stream.begin_term("z9")
            monitor.check()
            tail(stream)
    assert {violation.what.partition(" ")[0] for violation in monitor.violations} == {
        "Tail._held",
        "Tail.bytes_held",
    }


@pytest.mark.parametrize("begins", ["before", "meanwhile"])
async def test_a_connection_that_another_thread_uses_is_found(begins: str) -> None:
    """Its pumping, its closing and its changing, on a thread that is not its loop's."""
    monitor = ThreadMonitor()
    async with bridge() as running:
        factory = running.factory
        if begins == "before":
            reader = await Reader.open(running, "user_123")
        with monitor.watching(factory):
            if begins == "meanwhile":
                reader = await Reader.open(running, "user_123")
            await reader.until(lambda: reader.live)
            monitor.check()
            (connection,) = factory.manager.open_connections()
            await asyncio.to_thread(connection.pump)
            await asyncio.to_thread(setattr, connection, "place", connection.place)
            await asyncio.to_thread(connection.close, 1000, "rogue")  # type: ignore[arg-type]
        assert {violation.kind for violation in monitor.violations} == {
            ViolationKind.FOREIGN_THREAD
        }
        acts = {violation.what.partition(" of ")[0] for violation in monitor.violations}
        assert {"pump()", "place =", "close()"} <= acts
        assert all(violation.thread.startswith("asyncio_") for violation in monitor.violations)


async def test_a_bridge_is_watched_by_one_at_a_time() -> None:
    """Also under another factory with the same log; a block after another is fine."""
    monitor = ThreadMonitor()
    factory = WebSocketBridgeFactory("memory://?private")
    with (
        monitor.watching(factory),
        pytest.raises(UsageError, match="watched already"),
        monitor.watching(factory),
    ):
        pass
    with monitor.watching(factory):
        factory.get_user_emitter(UserWebSocketContext(user_id="user_123")).custom("app.note")
    monitor.check()


async def test_the_log_waits_beside_the_users_own_locks() -> None:
    """An application's lock that is taken inside a step, and the other way, is a danger."""
    monitor = ThreadMonitor()
    factory = WebSocketBridgeFactory("memory://?private")
    lock = monitor.lock(threading.Lock(), "carts")
    emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    with monitor.watching(factory):
        with lock:
            emitter.custom("app.note")
        monitor.check()
        with factory.log._lock, lock:
            pass
    (violation,) = monitor.violations
    assert violation.kind is ViolationKind.LOCK_ORDER
    assert violation.other is not None
    assert "eventlog/accepting.py" in violation.other.place
    assert ", called at " in violation.other.place
    assert line_of(test_the_log_waits_beside_the_users_own_locks, "emitter.custom") in (
        violation.other.place
    )

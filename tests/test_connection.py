from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from catenary import UserWebSocketContext, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.auth import Identity
from catenary.connection import ANSWERS_BYTES, Connection
from catenary.context import ConnectionStatus
from catenary.errors import UsageError
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import Retention
from catenary.limits import Limits
from catenary.session import ClientMessage, Session
from catenary.transport import StallingTransport
from catenary.wires.native import payload_of, split_frames

ME = Identity(user_id="user_123")


class Reader:
    """A connection over a transport without a socket, and what it was given."""

    def __init__(self, factory: WebSocketBridgeFactory) -> None:
        hub = factory.manager.hub()
        now = hub.loop.time()
        self.asked: list[ClientMessage] = []
        self.ended: list[tuple[int, str]] = []
        self.connection = Connection(
            hub,
            Session("c_1", factory.limits, now=now, is_authenticated=True),
            on_message=lambda _, message: self.asked.append(message),
            on_closed=lambda _, code, reason: self.ended.append((code, reason)),
        )
        self.transport = StallingTransport(self.connection, now=now)
        self.connection.transport = self.transport

    async def open(self, after: str = "start", thread_ids: set[str] | None = None) -> None:
        connection = self.connection
        connection.prepared = await connection.find_place(
            ME, log_id="user_123", after=after, thread_ids=thread_ids
        )
        connection.begin()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Everything that was written, as messages."""
        return [json.loads(payload_of(frame)) for frame in split_frames(self.transport.written)]

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]

    @property
    def seqs(self) -> list[int]:
        return [message["seq"] for message in self.messages if "seq" in message]

    async def until(self, count: int) -> None:
        """Let the loop turn until so many messages are there."""
        async with asyncio.timeout(5):
            while len(self.messages) < count:
                await asyncio.sleep(0)

    async def until_seq(self, seq: int) -> None:
        """Let the loop turn until the cursor has passed this number."""
        async with asyncio.timeout(5):
            while self.connection.place.seq < seq:
                await asyncio.sleep(0)


def note(emitter: UserWebSocketEmitter, count: int = 1) -> None:
    for number in range(count):
        emitter.custom("app.note", {"number": number})


async def test_what_was_emitted_before_the_connection_comes_first(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Connected, the events so far, live, then events as they come: dense and in order."""
    note(emitter, 3)
    reader = Reader(factory)
    await reader.open()
    await reader.until(5)
    note(emitter, 2)
    await reader.until(7)
    assert reader.types == ["connected", *["app.note"] * 3, "live", *["app.note"] * 2]
    assert reader.seqs == [1, 2, 3, 4, 5]
    assert reader.messages[4]["position"].endswith(":3")


async def test_a_resume_continues_exactly_after_its_position(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Of five events a reader that has two gets the other three."""
    note(emitter, 5)
    head = await factory.log.head("user_123")
    reader = Reader(factory)
    await reader.open(f"{head.epoch}:2")
    await reader.until_seq(5)
    assert reader.seqs == [3, 4, 5]
    assert reader.messages[0]["after"] == f"{head.epoch}:2"
    assert reader.messages[0]["replay"] == 3


async def test_events_of_one_turn_are_one_write(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Thirty-two events emitted in a turn reach the socket in a single write."""
    reader = Reader(factory)
    await reader.open()
    await reader.until(2)
    before = len(reader.transport.writes)
    note(emitter, 32)
    await reader.until(34)
    assert len(reader.transport.writes) == before + 1


async def test_a_stalled_reader_holds_nothing_and_misses_nothing(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """While its transport is paused the cursor stops; drained, it gets all of it, merged or not."""
    emitter.agent_started("researcher")
    reader = Reader(factory)
    await reader.open()
    await reader.until_seq(1)
    reader.transport.stall()
    text = "x" * 1000
    for _ in range(3000):
        emitter.agent_delta(text)
    for _ in range(50):
        await asyncio.sleep(0)
    assert reader.transport.buffered_bytes < 3 * 64 * 1024
    healthy = Reader(factory)
    await healthy.open("now")
    reader.transport.drain()
    await reader.until_seq(3001)
    numbers = [
        number
        for message in reader.messages
        if "seq" in message
        for number in range(message.get("from_seq", message["seq"]), message["seq"] + 1)
    ]
    assert numbers == list(range(1, 3002))
    said = "".join(m["data"]["delta"] for m in reader.messages if m["type"] == "agent_delta")
    assert said == text * 3000
    assert any("from_seq" in message for message in reader.messages)


async def test_a_stalled_reader_inside_the_tail_is_not_written_to(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Events that trickle in while the socket is full stay in the log, not in the transport."""
    reader = Reader(factory)
    await reader.open()
    reader.transport.stall()
    for _ in range(400):
        emitter.custom("app.note", {"text": "x" * 1000})
        await asyncio.sleep(0)
    assert reader.transport.buffered_bytes < 2 * 64 * 1024
    reader.transport.drain()
    await reader.until_seq(400)
    assert reader.seqs == list(range(1, 401))


async def test_a_filtered_reader_gets_its_threads_only(factory: WebSocketBridgeFactory) -> None:
    """Of two threads the chosen one arrives, from the log and from the tail; the place goes on."""
    one, two = (
        factory.get_user_emitter(UserWebSocketContext(user_id="user_123", thread_id=thread))
        for thread in ("t1", "t2")
    )
    for _ in range(3):
        note(one)
        note(two)
    reader = Reader(factory)
    await reader.open(thread_ids={"t2"})
    await reader.until_seq(6)
    note(one)
    note(two)
    await reader.until_seq(8)
    assert reader.seqs == [2, 4, 6, 8]
    assert {m["thread_id"] for m in reader.messages if "seq" in m} == {"t2"}
    assert reader.connection.place.seq == 8


async def test_a_position_beyond_the_head_begins_a_new_term(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The reader is told of a gap with reason future, and other readers of one with epoch."""
    note(emitter, 2)
    head = await factory.log.head("user_123")
    old = Reader(factory)
    await old.open()
    await old.until(4)
    ahead = Reader(factory)
    await ahead.open(f"{head.epoch}:9")
    await ahead.until(2)
    assert ahead.types[:2] == ["connected", "gap"]
    gap = ahead.messages[1]
    assert (gap["reason"], gap["after"]) == ("future", f"{head.epoch}:9")
    await old.until(5)
    assert old.messages[4]["reason"] == "epoch"
    note(emitter)
    await old.until_seq(3)
    await ahead.until_seq(3)
    event = next(message for message in ahead.messages if message.get("seq") == 3)
    assert event["id"] == gap["resumes_at"]
    assert not event["id"].startswith(head.epoch)


async def test_another_epoch_gets_a_gap_to_the_start(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A position of an unknown term is answered with a gap, then all that is retained."""
    note(emitter, 2)
    reader = Reader(factory)
    await reader.open("zz:1")
    await reader.until_seq(2)
    assert reader.types[:2] == ["connected", "gap"]
    assert reader.messages[1]["reason"] == "epoch"
    assert reader.seqs == [1, 2]


async def test_nonsense_is_refused(factory: WebSocketBridgeFactory) -> None:
    """A place that is none raises, and leaves nobody subscribed."""
    reader = Reader(factory)
    with pytest.raises(UsageError):
        await reader.open("nonsense")
    assert factory.log.stream("user_123").watchers == ()


async def test_retention_is_told_as_a_gap(factory: WebSocketBridgeFactory) -> None:
    """A reader whose next event is gone gets the gap first, then what is left."""
    log = MemoryLog(retention=Retention(events=100))
    async with WebSocketBridgeFactory(log=log) as small:
        emitter = small.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        note(emitter, 300)
        first = (await log.locate("user_123", "start")).seq + 1
        reader = Reader(small)
        await reader.open(str((await log.head("user_123")).epoch) + ":5")
        await reader.until_seq(300)
        gap = reader.messages[1]
        assert (gap["type"], gap["reason"]) == ("gap", "retention")
        assert gap["resumes_at"].endswith(f":{first}")
        assert reader.seqs == list(range(first, 301))


async def test_a_closed_connection_is_told_once_and_forgotten(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """After the transport is gone nothing is written and nobody is subscribed."""
    reader = Reader(factory)
    await reader.open()
    reader.transport.die(1006)
    written = len(reader.transport.writes)
    note(emitter, 3)
    for _ in range(10):
        await asyncio.sleep(0)
    assert reader.ended == [(1006, "")]
    assert len(reader.transport.writes) == written
    assert factory.log.stream("user_123").watchers == ()
    assert reader.connection.session.status is ConnectionStatus.CLOSED


async def test_150_seconds_idle_bring_heartbeats_and_no_drop(
    factory: WebSocketBridgeFactory,
) -> None:
    """In virtual time: a peer that answers pings stays, and hears a heartbeat each 15 to 18 s."""
    reader = Reader(factory)
    await reader.open()
    await reader.until(2)
    start = reader.transport.last_heard
    for tick in range(1, 51):
        now = start + tick * 3
        reader.connection.tick(now, 15.0, 5)
        reader.transport.pong(now=now)
    heartbeats = [message for message in reader.messages if message["type"] == "heartbeat"]
    assert 8 <= len(heartbeats) <= 10
    assert heartbeats[-1]["position"] == str(reader.connection.place)
    assert not reader.transport.is_aborted


async def test_a_frozen_peer_is_dead_after_two_and_a_half_intervals(
    factory: WebSocketBridgeFactory,
) -> None:
    """Without a byte from it and nothing on its way, it is aborted at 37.5 s and not before."""
    reader = Reader(factory)
    await reader.open()
    start = reader.transport.last_heard
    for tick in range(1, 13):
        reader.connection.tick(start + tick * 3, 15.0, 5)
    assert not reader.transport.is_aborted
    assert reader.transport.pings == 1
    reader.connection.tick(start + 39, 15.0, 5)
    assert reader.transport.is_aborted


async def test_what_a_frozen_peer_took_before_does_not_count(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Its kernel took what it had room for at once; from then on it is as dead as one without."""
    reader = Reader(factory)
    await reader.open()
    await reader.until(2)
    start = reader.transport.last_heard
    emitter.custom("app.note", {"pad": "x" * 1000})
    await reader.until_seq(1)
    reader.transport.stall()
    emitter.custom("app.note", {"pad": "x" * 1000})
    await reader.until_seq(2)
    for tick in range(1, 13):
        reader.connection.tick(start + tick * 3, 15.0, 5)
    assert not reader.transport.is_aborted
    reader.connection.tick(start + 42, 15.0, 5)
    assert reader.transport.is_aborted


async def test_a_slow_peer_that_takes_bytes_is_alive(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A backlog that shrinks is a sign of life, even if no pong can come through."""
    reader = Reader(factory)
    await reader.open()
    await reader.until(2)
    reader.transport.stall()
    emitter.custom("app.note", {"text": "x" * 200_000})
    await reader.until_seq(1)
    start = reader.transport.last_heard
    for tick in range(1, 30):
        reader.transport.drain(1000)
        reader.connection.tick(start + tick * 3, 15.0, 5)
    assert not reader.transport.is_aborted
    for tick in range(30, 45):
        reader.connection.tick(start + tick * 3, 15.0, 5)
    assert reader.transport.is_aborted


async def test_what_a_socket_took_counts_from_then(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Bytes that were taken while the peer was still heard are no later sign of life."""
    reader = Reader(factory)
    await reader.open()
    await reader.until(2)
    reader.transport.stall()
    emitter.custom("app.note", {"text": "x" * 200_000})
    await reader.until_seq(1)
    start = reader.transport.last_heard
    reader.transport.drain(1000)
    for tick in range(1, 14):
        reader.connection.tick(start + tick * 3, 15.0, 5)
    assert not reader.transport.is_aborted
    reader.connection.tick(start + 42, 15.0, 5)
    assert reader.transport.is_aborted


async def test_a_client_that_takes_no_answers_is_not_read_from(
    factory: WebSocketBridgeFactory,
) -> None:
    """Answers that pile up stop the reading, and draining starts it again."""
    reader = Reader(factory)
    await reader.open()
    reader.transport.stall()
    reader.connection.answer(b"\x81\x00" * ANSWERS_BYTES)
    assert not reader.transport.is_reading
    reader.transport.drain()
    assert reader.transport.is_reading


async def test_a_planned_close_is_announced(factory: WebSocketBridgeFactory) -> None:
    """``closing`` comes before 1012, once."""
    reader = Reader(factory)
    await reader.open()
    reader.connection.say_closing("draining", 1.5)
    reader.connection.say_closing("draining", 1.5)
    assert reader.types.count("closing") == 1
    assert reader.messages[-1]["reconnect_after"] == 1.5
    assert reader.transport.closing == (1012, "draining")


async def test_wake_ups_from_threads_lose_nothing(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Four threads emit 500 each while a reader is live: 2,000 arrive, dense and in order."""
    reader = Reader(factory)
    await reader.open()
    await asyncio.gather(*(asyncio.to_thread(note, emitter, 500) for _ in range(4)))
    await reader.until_seq(2000)
    assert reader.seqs == list(range(1, 2001))


async def test_limits_are_those_of_the_factory() -> None:
    """The heartbeat interval of the limits is what connected announces."""
    limits = Limits(heartbeat_interval=3)
    async with WebSocketBridgeFactory(log="memory://?private", limits=limits) as bridge:
        reader = Reader(bridge)
        await reader.open()
        assert reader.messages[0]["heartbeat_interval"] == 3

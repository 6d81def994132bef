"""Connections that break off at any byte, in either direction, and peers that dawdle."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.frames import Opcode

from catenary.errors import CloseCode
from catenary.limits import Limits
from catenary.serving.http_protocol import HTTPProtocol
from tests.e2e.support import (
    Bridge,
    Held,
    Reader,
    bridge,
    log_url,
    reset,
    resident_bytes,
    say,
    upgrade,
)
from tests.serving.sockets import Peer, masked, until

SEED = 4711
CUTS = 10_000
WARM_UP = 3_000
AT_ONCE = 40
EVENTS = 3
USER = "user_123"


class Cut(NamedTuple):
    """Send this, read so many bytes, send the rest, then end it."""

    sent: bytes
    read: int
    rest: bytes
    end: Callable[[socket.socket], None]


def frames() -> list[bytes]:
    """Frames of each kind and length of header that a client sends."""
    text = b'{"type":"app.echo","id":"m1","data":{"text":"%s"}}'
    return [
        masked(Opcode.TEXT, b'{"type":"ping","id":"p1"}'),
        masked(Opcode.TEXT, text % (b"x" * 200)),
        masked(Opcode.TEXT, text % (b"x" * 70_000)),
        masked(Opcode.TEXT, b'{"type":"pi', fin=False) + masked(Opcode.CONT, b'ng","id":1}'),
        masked(Opcode.PING, b"are you there"),
        masked(Opcode.CLOSE, b"\x03\xe8bye"),
    ]


def every_cut(answer_bytes: int) -> Iterator[Cut]:
    """Cut at every byte of the handshake, of frames and of what the server says, in two ways."""
    request = upgrade(USER)
    for end in (socket.socket.close, reset):
        for size in range(len(request)):
            yield Cut(request[:size], 0, b"", end)
        for size in range(answer_bytes + 1):
            yield Cut(request, size, b"", end)
        for frame in frames():
            for size in [*range(min(len(frame), 320)), *range(320, len(frame), 9973)]:
                yield Cut(request + frame[:size], 0, b"", end)
                yield Cut(request + frame[:size], 150, b"", end)
                yield Cut(request, answer_bytes, frame[:size], end)


async def make(cut: Cut, port: int) -> None:
    """Connect, do what is said, and end it."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        if cut.sent:
            await loop.sock_sendall(sock, cut.sent)
        missing = cut.read
        while missing and (data := await loop.sock_recv(sock, missing)):
            missing -= len(data)
        if cut.rest:
            await loop.sock_sendall(sock, cut.rest)
    finally:
        cut.end(sock)


@asynccontextmanager
async def watched_bridge(
    limits: Limits | None = None, *, log: str = "memory://?private"
) -> AsyncIterator[tuple[Bridge, int]]:
    """A bridge with an echo and events; and how many bytes a new reader is sent."""
    async with bridge(log, limits=limits) as running:

        @running.factory.on_message("app.echo")
        async def echo(message: object, emitter: object) -> None:
            """Nothing is to be said."""

        emitter = running.emitter(USER)
        for number in range(EVENTS):
            await emitter.custom("app.note", {"n": number})
        reader = await Reader.open(running, USER)
        await reader.until(lambda: reader.live)
        reader.close()
        yield running, reader.bytes_received


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
async def test_ten_thousand_cuts_leave_nothing_behind(kind: str, tmp_path: Path) -> None:
    """After them no task, socket or connection is left, memory is flat, and others saw nothing."""
    say(f"seed {SEED}")
    # The cut connections are of one user, and none of them may push out the bystander.
    limits = Limits(connections_per_user=AT_ONCE * 4)
    url = log_url(kind, tmp_path)
    async with watched_bridge(limits, log=url) as (running, answer_bytes):
        emitter = running.emitter(USER)
        bystander = await Reader.open(running, "bystander")
        other = running.emitter("bystander")
        order = list(every_cut(answer_bytes))
        random.Random(SEED).shuffle(order)
        cuts = itertools.islice(itertools.cycle(order), CUTS)
        assert len(order) < CUTS, "every cut is made"

        async def make_some(limit: int | None) -> None:
            for cut in itertools.islice(cuts, limit):
                await make(cut, running.server.port)

        async def make_all(count: int | None) -> float:
            began = time.perf_counter()
            share = None if count is None else count // AT_ONCE
            await asyncio.gather(*(make_some(share) for _ in range(AT_ONCE)))
            await until(lambda: len(running.server.state.connections) == 1)
            await until(lambda: not running.server.state.tasks)
            return time.perf_counter() - began

        seconds = await make_all(WARM_UP)
        held, resident = Held.now(), resident_bytes()
        seconds += await make_all(None)
        grown = resident_bytes() - resident
        say(f"{CUTS} cuts of {len(order)} kinds in {seconds:.1f} s; memory {grown / 1024:+.0f} KiB")
        assert Held.now() == held
        assert running.factory.manager.connection_count == 1
        assert running.factory.log.stream(USER).watchers == ()
        assert running.factory.manager.waiting_for_auth == 0
        assert grown < 4 * 1024 * 1024
        assert (await emitter.custom("app.note", {})).seq == EVENTS + 1
        await other.custom("app.note", {})
        await bystander.until(lambda: bystander.reached == 1)
        assert bystander.faults == []


async def test_cuts_while_events_come() -> None:
    """Readers that vanish in the middle of what they are sent disturb no other reader."""
    async with watched_bridge(Limits(connections_per_user=100)) as (running, _):
        emitter = running.emitter(USER)
        staying = await Reader.open(running, USER)
        held = Held.now()
        rng = random.Random(SEED)
        say(f"seed {SEED}")
        for number in range(200):
            cut = Cut(upgrade(USER), rng.randrange(400, 4000), b"", rng.choice([reset, _close]))
            making = asyncio.create_task(make(cut, running.server.port))
            while not making.done():
                emitter.custom("app.note", {"n": number, "pad": "x" * 500})
                await asyncio.sleep(0)
        head = await running.factory.log.head(USER)
        await staying.until(lambda: staying.reached == head.seq)
        await until(lambda: len(running.server.state.connections) == 1)
        assert staying.faults == []
        assert Held.now() == held


def _close(sock: socket.socket) -> None:
    sock.close()


async def test_a_half_open_peer_is_let_go() -> None:
    """One whose network is gone, so that nothing comes and nothing is refused, is cut in time."""
    limits = Limits(heartbeat_interval=0.2)
    async with watched_bridge(limits) as (running, _):
        silent = await Peer.open(running.server, "/ws", headers=_bearer())
        await until(lambda: running.factory.manager.connection_count == 1)
        began = time.monotonic()
        await until(lambda: running.factory.manager.connection_count == 0)
        assert 0.4 < time.monotonic() - began < 1.0
        await until(lambda: not running.server.state.connections)
        del silent


async def test_a_half_closed_peer_is_closed() -> None:
    """One that ends its sending and goes on listening gets an end too."""
    async with watched_bridge() as (running, _):
        peer = await Peer.open(running.server, "/ws", headers=_bearer())
        peer.writer.write_eof()
        await peer.rest()
        await until(lambda: not running.server.state.connections)


def _bearer() -> list[tuple[bytes, bytes]]:
    line = next(line for line in upgrade(USER).split(b"\r\n") if line.startswith(b"authorization"))
    return [(b"authorization", line.partition(b": ")[2])]


class _Hurried(HTTPProtocol):
    header_timeout = 0.5


@pytest.mark.parametrize("begin", [b"", b"GET /", b"GET /ws HTTP/1.1\r\nhost: localhost\r\nx: "])
async def test_a_peer_that_sends_a_byte_at_a_time(begin: bytes) -> None:
    """Dawdling over the headers is cut off at the deadline, however lively it looks."""
    async with bridge(http=_Hurried) as running:
        peer = await Peer.connect(running.server)
        peer.send(begin)
        began = time.monotonic()
        for byte in b"GET /" * (not begin) + b"x" * 100:
            peer.send(bytes([byte]))
            if peer.reader.at_eof():
                break
            try:
                async with asyncio.timeout(0.05):
                    await peer.reader.read(1000)
            except (TimeoutError, ConnectionError):
                if peer.writer.is_closing():
                    break
            assert time.monotonic() - began < 2.0
        assert time.monotonic() - began > 0.4
        await until(lambda: not running.server.state.connections)


async def test_a_peer_that_says_who_it_is_a_byte_at_a_time() -> None:
    """Dawdling over the first message is cut off at the deadline with 4004."""
    async with bridge(limits=Limits(handshake_timeout=0.5)) as running:
        peer = await Peer.open(running.server, "/ws")
        began = time.monotonic()
        first = masked(Opcode.TEXT, b'{"type":"auth","token":"' + b"x" * 100 + b'"}')
        for byte in first[:20]:
            peer.send(bytes([byte]))
            await asyncio.sleep(0.01)
        code, _ = await peer.close_frame()
        assert code == CloseCode.AUTH_TIMEOUT
        assert 0.3 < time.monotonic() - began < 1.5
        peer.close()
        await until(lambda: running.factory.manager.waiting_for_auth == 0)


async def test_the_server_starts_and_stops_without_a_trace() -> None:
    """After 50 lives of bridge and server, with a reader each, nothing is left of them."""

    async def live() -> None:
        async with bridge() as running:
            reader = await Reader.open(running, USER)
            await running.emitter(USER).custom("app.note", {})
            await reader.until(lambda: reader.reached == 1)

    for _ in range(5):
        await live()
    held, resident = Held.now(), resident_bytes()
    for _ in range(50):
        await live()
    assert Held.now() == held
    assert resident_bytes() - resident < 4 * 1024 * 1024

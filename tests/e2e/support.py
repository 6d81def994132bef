"""A bridge behind a real server, and readers on real sockets."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
import msgspec
from websockets.frames import Opcode

from catenary import UserWebSocketContext, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.auth import JwtVerifier, sign_token
from catenary.connection import Connection
from catenary.eventlog.base import EventLog
from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol
from catenary.session import Session
from tests.nats_server import nats_url_of_its_own
from tests.redis_server import url_of_its_own
from tests.serving.sockets import Server, living, masked, open_files, request, serving, until

SECRET = "a secret of tests only, long enough for HS256"
API_KEY = "a key of tests only, long enough for a key"
PATIENCE = 15.0


def token_of(user_id: str) -> str:
    return sign_token(user_id, secret=SECRET)


def log_url(kind: str, directory: Path) -> str:
    """Return the URL of a log of its own."""
    if kind == "redis":
        return url_of_its_own()
    if kind == "nats":
        return nats_url_of_its_own()
    return "memory://?private" if kind == "memory" else f"sqlite:///{directory}/events.db"


class Bridge(NamedTuple):
    """A started bridge, and the server that shows it."""

    factory: WebSocketBridgeFactory
    server: Server

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def emitter(self, user_id: str, **ids: Any) -> UserWebSocketEmitter:
        return self.factory.get_user_emitter(UserWebSocketContext(user_id=user_id, **ids))

    @asynccontextmanager
    async def http(self, bearer: str = API_KEY) -> AsyncIterator[httpx.AsyncClient]:
        """Ask over HTTP, as whoever has this key or token."""
        headers = {"authorization": f"Bearer {bearer}"}
        async with httpx.AsyncClient(base_url=self.base, headers=headers, timeout=PATIENCE) as http:
            yield http


@asynccontextmanager
async def bridge(
    log: str | EventLog = "memory://?private",
    *,
    app: dict[str, Any] | None = None,
    http: type[HTTPProtocol] = HTTPProtocol,
    **options: Any,
) -> AsyncIterator[Bridge]:
    """Serve a bridge until the block ends."""
    factory = WebSocketBridgeFactory(log, run_drain_timeout=0.5, **options)
    served = factory.asgi_app(verifier=JwtVerifier(secret=SECRET), api_key=API_KEY, **(app or {}))
    async with factory, serving(served, http=http) as server:
        yield Bridge(factory, server)


def upgrade(user_id: str | None, query: str = "") -> bytes:
    """Build the request that opens ``/ws``."""
    headers = (
        [] if user_id is None else [(b"authorization", f"Bearer {token_of(user_id)}".encode())]
    )
    return request(f"/ws?{query}" if query else "/ws", headers=headers)


class Reader(asyncio.Protocol):
    """
    A client on a socket of its own that keeps, with ``keep``, what it is told.

    ``reached`` and ``first`` are the last and the first ``seq`` that it has;
    events must rise by one, merged ranges counted, unless ``is_filtered``.
    """

    transport: asyncio.Transport

    def __init__(self, *, keep: bool = True, is_filtered: bool = False) -> None:
        self.messages: list[dict[str, Any]] = []
        self.status = 0
        self.close_code: int | None = None
        self.is_over = False
        self.head: dict[str, Any] = {}
        self.live: str | None = None
        self.gaps: list[dict[str, Any]] = []
        self.events = 0
        self.bytes_received = 0
        self.reached = 0
        self.on_event: Callable[[dict[str, Any]], None] | None = None
        self.faults: list[str] = []
        self._keep = keep
        self._is_filtered = is_filtered
        self._buffer = bytearray()

    @classmethod
    async def connect(
        cls,
        bridge: Bridge,
        user_id: str | None,
        *,
        receive_buffer: int | None = None,
        port: int | None = None,
        keep: bool = True,
        query: Sequence[tuple[str, str]] = (),
        **fields: str,
    ) -> Reader:
        """Connect and ask for ``/ws``; ``fields`` and ``query`` are its query."""
        pairs = [*fields.items(), *query]
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", port or bridge.server.port))
        is_filtered = any(name == "thread_id" for name, _ in pairs)
        _, reader = await loop.create_connection(
            lambda: cls(keep=keep, is_filtered=is_filtered), sock=sock
        )
        bridge.server.peers.add(reader)  # type: ignore[arg-type]
        reader.transport.write(upgrade(user_id, urlencode(pairs)))
        await until(lambda: reader.status or reader.is_over)
        return reader

    @classmethod
    async def open(cls, bridge: Bridge, user_id: str | None, **options: Any) -> Reader:
        """Connect, and be greeted."""
        reader = await cls.connect(bridge, user_id, **options)
        await reader.until(lambda: reader.head)
        return reader

    # What it has

    @property
    def received(self) -> list[dict[str, Any]]:
        """The events that it kept."""
        return [message for message in self.messages if "seq" in message]

    def of_type(self, type: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == type]

    async def until(self, condition: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until ``condition`` holds; an end of the connection ends the wait."""
        async with asyncio.timeout(patience):
            while not condition():
                assert not self.is_over, (self.status, self.close_code, self.messages[-1:])
                await asyncio.sleep(0.002)

    async def ended(self) -> int | None:
        """Wait for the end; return the close code."""
        async with asyncio.timeout(PATIENCE):
            while not self.is_over:
                await asyncio.sleep(0.002)
        return self.close_code

    async def answer_to(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message, and wait for the control message that answers it."""
        seen = len(self.messages)
        self.say(message)
        answers: list[dict[str, Any]] = []

        def look() -> list[dict[str, Any]]:
            answers[:] = [
                found
                for found in self.messages[seen:]
                if "seq" not in found and found["type"] not in {"live", "heartbeat", "gap"}
            ]
            return answers

        await self.until(look)
        return answers[0]

    # What it does

    def say(self, message: dict[str, Any]) -> None:
        self.transport.write(masked(Opcode.TEXT, msgspec.json.encode(message)))

    def stop_reading(self) -> None:
        self.transport.pause_reading()

    def read_on(self) -> None:
        self.transport.resume_reading()

    def close(self) -> None:
        """Vanish, without a close frame."""
        self.transport.abort()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._buffer += data
        if not self.status:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.status = int(self._buffer.split(b" ", 2)[1])
            if self.status != 101:
                return
            del self._buffer[: end + 4]
        if self.status == 101:
            self._take_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True

    @property
    def body(self) -> bytes:
        """The body of an answer that refuses."""
        return bytes(self._buffer.partition(b"\r\n\r\n")[2])

    def _take_frames(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) >= at + 2:
            size, begin = buffer[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                begin += width
                if len(buffer) < begin:
                    break
                size = int.from_bytes(buffer[begin - width : begin], "big")
            if len(buffer) < begin + size:
                break
            self._take_frame(buffer[at], bytes(buffer[begin : begin + size]))
            at = begin + size
        del buffer[:at]

    def _take_frame(self, first: int, payload: bytes) -> None:
        if first == 0x81:
            self._take(msgspec.json.decode(payload))
        elif first == 0x88:
            self.close_code = int.from_bytes(payload[:2], "big")
            self.transport.write(masked(Opcode.CLOSE, payload[:2]))
        elif first == 0x89:
            self.transport.write(masked(Opcode.PONG, payload))
        else:
            self.faults.append(f"a frame that begins with {first:#x}")

    def _take(self, message: dict[str, Any]) -> None:
        if self._keep or "seq" not in message:
            self.messages.append(message)
        if "seq" in message:
            self._take_event(message)
        elif message["type"] == "connected":
            self.head = message
            self.reached = int(message["after"].partition(":")[2])
        elif message["type"] == "gap":
            self.gaps.append(message)
            self.reached = int(message["resumes_at"].partition(":")[2]) - 1
        elif message["type"] == "live":
            self.live = message["position"]

    def _take_event(self, event: dict[str, Any]) -> None:
        first, last = event.get("from_seq", event["seq"]), event["seq"]
        is_next = first > self.reached if self._is_filtered else first == self.reached + 1
        if not is_next or last < first:
            self.faults.append(f"{first} to {last} came after {self.reached}")
        self.reached = last
        self.events += 1
        if self.on_event is not None:
            self.on_event(event)


# What is left behind


class Held(NamedTuple):
    """What a process holds that a leak would make grow."""

    tasks: int
    threads: int
    files: int
    objects: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        return cls(
            len(asyncio.all_tasks()),
            threading.active_count(),
            open_files(),
            living(Connection, Session, HTTPProtocol, WebSocketProtocol),
        )


def resident_bytes() -> int:
    """How much memory of this process is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def reset(sock: socket.socket) -> None:
    """Close a socket with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Emitters


class Call(NamedTuple):
    """One call of a verb; ``begun`` and ``returned`` number all such moments of the process."""

    sender: str
    number: int
    begun: int
    returned: int
    seconds: float


class Calls:
    """Emits numbered events from anywhere, and notes how each call went."""

    def __init__(self) -> None:
        self._moments = itertools.count()
        self.made: dict[tuple[str, int], Call] = {}
        self.receipts: dict[tuple[str, int], Any] = {}

    def emit(self, emitter: UserWebSocketEmitter, sender: str, number: int, pad: str = "") -> None:
        begun, start = next(self._moments), time.perf_counter()
        receipt = emitter.custom("app.note", {"sender": sender, "n": number, "pad": pad})
        seconds = time.perf_counter() - start
        self.made[sender, number] = Call(sender, number, begun, next(self._moments), seconds)
        self.receipts[sender, number] = receipt

    @property
    def longest(self) -> float:
        """The longest call, in seconds."""
        return max(call.seconds for call in self.made.values())

    async def check(self, events: Iterable[dict[str, Any]]) -> None:
        """Check that these are all events, once, each sender's and each moment's order kept."""
        next_of: dict[str, int] = {}
        latest_begun = -1
        count = 0
        for event in events:
            sender, number = event["data"]["sender"], event["data"]["n"]
            assert number == next_of.get(sender, 0), (sender, number)
            next_of[sender] = number + 1
            call = self.made[sender, number]
            assert call.returned > latest_begun, f"{call} returned before an earlier event's began"
            latest_begun = max(latest_begun, call.begun)
            assert str(await self.receipts[sender, number]) == event["id"]
            count += 1
        assert count == len(self.made)


def say(*words: object) -> None:
    """Show a measurement or a seed in the report of the tests."""
    print(*words, file=sys.stderr)

"""A server in this process, and a peer that sends it whatever bytes a test wants."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from websockets.frames import Opcode

from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol
from catenary.transport import Transport

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
PATIENCE = 5.0


class Server:
    """A running uvicorn server."""

    def __init__(self, server: uvicorn.Server) -> None:
        self._server = server
        self.state = server.server_state
        self.peers: set[Peer] = set()
        self.port: int = server.servers[0].sockets[0].getsockname()[1]

    async def until_idle(self) -> None:
        """Wait until no connection and no task is left."""
        await until(lambda: not self.state.connections and not self.state.tasks)

    async def shut_down(self) -> None:
        self._server.config.timeout_graceful_shutdown = int(PATIENCE)
        await self._server.shutdown()


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[Server]:
    """Serve ``app`` on a port of its own until the block ends."""
    options = {"http": HTTPProtocol, "ws": WebSocketProtocol, "lifespan": "off", **options}
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1, **options)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.on_tick(0)
    await server.startup()
    running = Server(server)
    try:
        yield running
    finally:
        for peer in list(running.peers):
            peer.close()
        for connection in list(server.server_state.connections):
            # uvicorn's own protocols and ours end by different names.
            getattr(connection, "transport", connection).abort()  # type: ignore[union-attr]
        await server.shutdown()


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds, looking again each turn of the loop."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def request(
    path: str = "/",
    *,
    drop_headers: Sequence[bytes] = (),
    headers: Sequence[tuple[bytes, bytes]] = (),
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
) -> bytes:
    """Build an upgrade request; ``headers`` replace those of the same name."""
    standard = [
        (b"Host", b"localhost"),
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Key", KEY),
        (b"Sec-WebSocket-Version", b"13"),
    ]
    replaced = {name.lower() for name, _ in headers} | {name.lower() for name in drop_headers}
    kept = [(name, value) for name, value in standard if name.lower() not in replaced]
    lines = [b"%s %s %s" % (method, path.encode(), version)]
    lines += [b"%s: %s" % pair for pair in [*kept, *headers]]
    return b"\r\n".join([*lines, b"", b""])


def masked(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    """Build a frame as a client sends it, also one that no client may send."""
    size = len(payload)
    head = bytes([opcode | (0x80 if fin else 0)])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    mask = b"\x0f\xf0\x55\xaa"
    body = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + body.to_bytes(size, "big")


def text(message: str) -> bytes:
    return masked(Opcode.TEXT, message.encode())


def closing(code: int | None = None, reason: str = "") -> bytes:
    payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
    return masked(Opcode.CLOSE, payload)


class Response:
    """An HTTP response."""

    def __init__(self, head: bytes) -> None:
        line, *fields = head.split(b"\r\n")
        self.status = int(line.split(b" ")[1])
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        for field in fields:
            name, _, value = field.partition(b":")
            self.headers[name.lower()] = value.strip()


class Peer:
    """The other end of a connection; every wait is bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, server: Server, *, receive_buffer: int | None = None) -> Peer:
        """Connect; ``receive_buffer`` bounds what the kernel takes for a peer that does not read."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
        peer = cls(reader, writer)
        server.peers.add(peer)
        return peer

    @classmethod
    async def open(
        cls, server: Server, path: str = "/", *, receive_buffer: int | None = None, **options: Any
    ) -> Peer:
        """Connect, and complete the opening handshake."""
        peer = await cls.connect(server, receive_buffer=receive_buffer)
        peer.send(request(path, **options))
        response = await peer.response()
        assert response.status == 101
        return peer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> Response:
        """Read a response, with its body if its length is known."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            response = Response(head.removesuffix(b"\r\n\r\n"))
            size = int(response.headers.get(b"content-length", b"0"))
            response.body = await self.reader.readexactly(size)
        return response

    async def frame(self) -> tuple[Opcode, bytes]:
        """Read a frame, which must be whole and unmasked."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            size = second
            if second in {126, 127}:
                width = 2 if second == 126 else 8
                size = int.from_bytes(await self.reader.readexactly(width), "big")
            assert first & 0xF0 == 0x80
            return Opcode(first & 0x0F), await self.reader.readexactly(size)

    async def message(self) -> str:
        opcode, payload = await self.frame()
        assert opcode is Opcode.TEXT
        return payload.decode()

    async def close_frame(self) -> tuple[int, str]:
        opcode, payload = await self.frame()
        assert opcode is Opcode.CLOSE
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def rest(self) -> bytes:
        """Read what comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read(-1)
            except ConnectionResetError:
                return b""

    def abort(self) -> None:
        """Reset the connection."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """Close without a close frame."""
        self.writer.transport.abort()


class Recorder:
    """A receiver that keeps what it was told."""

    def __init__(self) -> None:
        self.transport: Transport | None = None
        self.messages: list[str | bytes] = []
        self.writables = 0
        self.ends: list[tuple[int, str]] = []

    @property
    def socket(self) -> Transport:
        assert self.transport is not None
        return self.transport

    def message_received(self, message: str | bytes) -> None:
        assert not self.ends
        self.messages.append(message)

    def writable(self) -> None:
        assert not self.ends
        self.writables += 1

    def closed(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))


class TakeoverApp:
    """An application whose every WebSocket is taken over by a recorder."""

    def __init__(self, make: Callable[[], Recorder] = Recorder) -> None:
        self.recorders: list[Recorder] = []
        self._make = make

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        recorder = self._make()
        recorder.transport = scope["extensions"]["catenary.takeover"](recorder)
        self.recorders.append(recorder)

    @property
    def only(self) -> Recorder:
        (recorder,) = self.recorders
        return recorder

    async def first(self) -> Recorder:
        await until(lambda: self.recorders)
        return self.recorders[0]


def living(*kinds: type) -> int:
    """Count the objects of these classes, without collecting cycles first."""
    # By type(): hostile objects of other tests may refuse to be asked for their class.
    return sum(issubclass(type(found), kinds) for found in gc.get_objects())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))

"""A server of catenary.v1 over real sockets that does what a test tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from catenary.client import Backoff, Client

SEED = 20261121
"""Of the waits between attempts."""

Answer = tuple[int, dict[str, str]]


class Visit:
    """One attempt to connect, as the server sees it."""

    def __init__(self, socket: ServerConnection, number: int) -> None:
        assert socket.request is not None
        self.socket = socket
        self.number = number
        self.query = parse_qs(urlsplit(socket.request.path).query)
        self.authorization = socket.request.headers.get("Authorization")
        self.received: list[dict[str, Any]] = []

    @property
    def after(self) -> str | None:
        return self.query.get("after", [None])[0]

    async def send(self, message: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(message))

    async def greet(self, after: str | None = None, *, interval: float = 15.0, **more: Any) -> None:
        place = after or self.after or "k3:0"
        connected = {"type": "connected", "protocol": "catenary.v1", "user_id": "user_123"}
        places = {"position": place, "after": place, "replay": 0}
        limits = {"heartbeat_interval": interval, "max_message_bytes": 65536}
        await self.send({**connected, **places, **limits, **more})

    async def event(self, seq: int, **more: Any) -> None:
        await self.send(event(seq, **more))

    async def events(self, first: int, last: int) -> None:
        for seq in range(first, last + 1):
            await self.event(seq)

    async def live(self, seq: int) -> None:
        await self.send({"type": "live", "position": f"k3:{seq}"})

    async def receive(self, type: str) -> dict[str, Any]:
        """Wait for the next message of a type; what comes before it is kept in ``received``."""
        while True:
            message: dict[str, Any] = json.loads(await self.socket.recv())
            self.received.append(message)
            if message["type"] == type:
                return message

    async def stay(self) -> None:
        """Read, and answer what the protocol itself asks, until the client leaves."""
        async for raw in self.socket:
            message = json.loads(raw)
            self.received.append(message)
            # The last words of a client that leaves are read, though not answered.
            with suppress(ConnectionClosed):
                if message["type"] == "ping":
                    await self.send({"type": "pong"})
                elif message["type"] == "position":
                    await self.send({"type": "position_ok", "position": message["position"]})

    def cut(self, message: dict[str, Any], size_bytes: int) -> None:
        """Send only the first bytes of a message's frame, and end the connection."""
        data = json.dumps(message).encode()
        frame = Frame(Opcode.TEXT, data).serialize(mask=False)
        self.socket.transport.write(frame[:size_bytes])
        self.socket.transport.close()


def event(seq: int, *, epoch: str = "k3", **more: Any) -> dict[str, Any]:
    return {
        "type": "app.number",
        "id": f"{epoch}:{seq}",
        "seq": seq,
        "user_id": "user_123",
        "timestamp": 1795222800123,
        "data": {"n": seq},
        **more,
    }


Script = Callable[[Visit], Awaitable[None]]
Refusal = Callable[[int, Request], Answer | None]


class Server:
    """Where the scripted server listens, and who came."""

    def __init__(self) -> None:
        self.url = ""
        self.visits: list[Visit] = []
        self.requests: list[Request] = []
        self.arrived = asyncio.Event()

    async def visited(self, count: int) -> None:
        """Wait until so many connections were opened."""
        while len(self.visits) < count:
            self.arrived.clear()
            await self.arrived.wait()


@asynccontextmanager
async def scripted(script: Script, refuse: Refusal | None = None) -> AsyncIterator[Server]:
    """Serve ``script`` once for each connection; ``refuse`` may answer attempts instead."""
    server = Server()

    async def handle(socket: ServerConnection) -> None:
        visit = Visit(socket, len(server.visits) + 1)
        server.visits.append(visit)
        server.arrived.set()
        try:
            await script(visit)
        except ConnectionClosed:
            return

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        server.requests.append(request)
        answer = refuse(len(server.requests), request) if refuse else None
        if answer is None:
            return None
        status, headers = answer
        body = json.dumps({"error": "refused", "message": f"answered {status}"}).encode()
        headers = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
        return Response(status, HTTPStatus(status).phrase, Headers(headers), body)

    async with serve(
        handle,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("catenary.v1")],
        process_request=process_request,
        ping_interval=None,
        close_timeout=0.5,
        compression=None,
    ) as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
        server.url = f"ws://127.0.0.1:{port}/ws"
        yield server


def quick_backoff() -> Backoff:
    """Waits a hundred times shorter than usual, the same in each run."""
    return Backoff(first=0.002, base=0.0025, cap=0.1, random=Random(SEED))


def quick(url: str, **options: Any) -> Client:
    """A client that comes back at once."""
    return Client(url, **{"backoff": quick_backoff(), "close_timeout": 0.5, **options})

"""A bridge behind a real server, on the fast path and on plain ASGI, and a client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from catenary import UserWebSocketContext, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.auth import JwtVerifier, sign_token
from catenary.limits import Limits
from catenary.serving.asgi import BridgeApp
from tests.serving.sockets import PATIENCE, Server, serving

SECRET = "a-secret-of-more-than-thirty-two-bytes"
API_KEY = "an-api-key-for-producers"
PLAIN = {"ws": "websockets-sansio", "http": "httptools"}
PATHS = ["fast", "plain"]


def token(user_id: str = "user_123", **options: Any) -> str:
    return sign_token(user_id, secret=SECRET, **options)


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


class Client:
    """A WebSocket client whose every wait is bounded."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        return message

    async def until(self, type: str) -> list[dict[str, Any]]:
        """Everything through the first message of this type."""
        messages = [await self.receive()]
        while messages[-1]["type"] != type:
            messages.append(await self.receive())
        return messages

    async def answer(self) -> dict[str, Any]:
        """The next message that answers one of ours."""
        while True:
            message = await self.receive()
            if "seq" not in message and message["type"] not in {"connected", "live", "heartbeat"}:
                return message

    async def ask(self, message: Any) -> dict[str, Any]:
        await self.send(message)
        return await self.answer()

    async def send(self, message: Any) -> None:
        await self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def end(self) -> tuple[int, str]:
        """How the server closes, whatever it says before."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code, self.socket.close_reason or ""


class Bridge:
    """A bridge that is being served."""

    def __init__(self, factory: WebSocketBridgeFactory, app: BridgeApp, server: Server) -> None:
        self.factory = factory
        self.app = app
        self.server = server

    def emitter(self, user_id: str = "user_123", thread_id: str = "t1") -> UserWebSocketEmitter:
        return self.factory.get_user_emitter(
            UserWebSocketContext(user_id=user_id, thread_id=thread_id)
        )

    @asynccontextmanager
    async def connected(
        self,
        query: str = "",
        *,
        user_id: str | None = "user_123",
        subprotocols: Sequence[str] = ("catenary.v1",),
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> AsyncIterator[Client]:
        """Connect as a user; as nobody if ``user_id`` is None."""
        fields = dict(headers or {})
        if user_id is not None:
            fields |= bearer(token(user_id))
        async with connect(
            f"ws://127.0.0.1:{self.server.port}/ws{query}",
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            additional_headers=fields,
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            proxy=None,
            **options,
        ) as socket:
            yield Client(socket)

    async def refusal(self, query: str = "", **options: Any) -> tuple[int, dict[str, Any], Any]:
        """The status, body and headers with which a handshake is refused."""
        options = {"subprotocols": (), **options}
        try:
            async with self.connected(query, **options):
                raise AssertionError("the handshake was not refused")
        except InvalidStatus as error:
            body = json.loads(error.response.body or b"{}")
            return error.response.status_code, body, error.response.headers

    async def closed_at_once(self, query: str = "", **options: Any) -> tuple[int, str]:
        """How a client that offered the subprotocol is closed without a word."""
        async with self.connected(query, **options) as client:
            assert client.socket.subprotocol == "catenary.v1"
            return await client.end()

    def http(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.server.port}", timeout=PATIENCE, trust_env=False,
            **options,
        )  # fmt: skip


@asynccontextmanager
async def bridge_on(
    path: str,
    *,
    limits: Limits | None = None,
    factory: WebSocketBridgeFactory | None = None,
    **options: Any,
) -> AsyncIterator[Bridge]:
    """Serve a started bridge on the ``fast`` path or on ``plain`` ASGI."""
    bridge = factory or WebSocketBridgeFactory(
        log="memory://?private", limits=limits, run_drain_timeout=0.2
    )
    options = {"verifier": JwtVerifier(secret=SECRET), "api_key": API_KEY, **options}
    app = BridgeApp(bridge, **options)
    async with bridge, serving(app, **({} if path == "fast" else PLAIN)) as server:
        yield Bridge(bridge, app, server)


@asynccontextmanager
async def asgi_client(app: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application in this process, without a socket."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://bridge.example", timeout=PATIENCE, **options
    ) as client:
        yield client

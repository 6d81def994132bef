"""``/ws``: the native wire over WebSocket."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from catenary.connection import Connection
from catenary.control import Control
from catenary.encoding import encode
from catenary.errors import CloseCode, ConnectionClosed
from catenary.serving.admission import Admission, Refusal, told_of
from catenary.serving.plain import PlainTransport
from catenary.serving.query import Wanted
from catenary.session import ClientMessage
from catenary.wires.native import SUBPROTOCOL

logger = logging.getLogger("catenary.serving")


class NativeEndpoint:
    """
    An ASGI application for the WebSocket of the native wire.

    Under :class:`catenary.serving.WebSocketProtocol` it takes the connection
    over and returns; elsewhere it serves it with plain ASGI messages.
    """

    def __init__(self, admission: Admission, control: Control) -> None:
        self._admission = admission
        self._control = control
        self._factory = admission.factory
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        request = HTTPConnection(scope)
        offers = SUBPROTOCOL in scope.get("subprotocols", ())
        try:
            self._admission.check_ready()
            wanted = self._admission.wanted(request)
            identity = await self._admission.identify(request)
            connection = self._admission.new_connection(
                request, on_message=self._control.handle, is_authenticated=identity is not None
            )
            if identity is not None:
                await self._admission.prepare(connection, identity, wanted)
            else:
                self._check_crowd()
        except Refusal as refusal:
            await refuse_upgrade(scope, receive, send, refusal, offers_subprotocol=offers)
            return
        await self._open(connection, scope, receive, send, wanted, SUBPROTOCOL if offers else None)

    def _check_crowd(self) -> None:
        manager = self._factory.manager
        if manager.waiting_for_auth >= manager.limits.unauthenticated_connections:
            raise Refusal(429, "too_many", "too many unauthenticated connections", retry_after=5)

    async def _open(
        self,
        connection: Connection,
        scope: Scope,
        receive: Receive,
        send: Send,
        wanted: Wanted,
        subprotocol: str | None,
    ) -> None:
        takeover = scope.get("extensions", {}).get("catenary.takeover")
        plain = None
        try:
            if takeover is not None:
                connection.transport = takeover(connection, subprotocol=subprotocol)
            else:
                plain = PlainTransport(connection, receive, send)
                connection.transport = plain
                await plain.accept(subprotocol)
        except ConnectionClosed:
            connection.give_up()
            return
        except BaseException:
            connection.give_up()
            raise
        if connection.prepared is not None:
            self._admission.begin(connection, wanted)
        else:
            self._await_auth(connection, wanted, HTTPConnection(scope))
        if plain is not None:
            await plain.serve()

    # A first message instead of a credential in the handshake

    def _await_auth(self, connection: Connection, wanted: Wanted, request: HTTPConnection) -> None:
        manager = self._factory.manager
        manager.waiting_for_auth += 1
        timer = connection.hub.loop.call_later(
            manager.limits.handshake_timeout,
            connection.close,
            CloseCode.AUTH_TIMEOUT,
            "no auth message came",
        )

        def ended() -> None:
            timer.cancel()
            manager.waiting_for_auth -= 1

        def first_message(connection: Connection, message: ClientMessage) -> None:
            connection.hold_messages()
            timer.cancel()
            task = asyncio.ensure_future(self._authenticate(connection, message, wanted, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        connection.await_auth(first_message, ended)

    async def _authenticate(
        self,
        connection: Connection,
        message: ClientMessage,
        wanted: Wanted,
        request: HTTPConnection,
    ) -> None:
        try:
            identity = await self._admission.identify_token(message.token or "", request)
            await self._admission.prepare(connection, identity, wanted)
        except Refusal as refusal:
            code = refusal.close_code or CloseCode.LOG_UNAVAILABLE
            connection.close(code, refusal.message)
            return
        except Exception:
            logger.exception("a first message could not be handled", extra=told_of(connection))
            connection.close(CloseCode.INTERNAL, "internal error")
            return
        connection.authenticated(self._control.handle)
        self._admission.begin(connection, wanted)
        connection.release_messages()


async def refuse_upgrade(
    scope: Scope, receive: Receive, send: Send, refusal: Refusal, *, offers_subprotocol: bool
) -> None:
    """Refuse before the upgrade; a browser cannot read a status, so it gets a close code."""
    if refusal.close_code is not None and offers_subprotocol:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        await send(
            {
                "type": "websocket.close",
                "code": int(refusal.close_code),
                "reason": refusal.message[:120],
            }
        )
        return
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.message[:120]})
        return
    body = encode({"error": refusal.error, "message": refusal.message})
    headers: list[Any] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in refusal.headers.items()),
    ]
    await send(
        {"type": "websocket.http.response.start", "status": refusal.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": body})

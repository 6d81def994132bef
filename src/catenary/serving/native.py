"""``/ws``: the native wire over WebSocket."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from catenary.auth import Identity
from catenary.connection import Connection
from catenary.control import Control, lives_until
from catenary.encoding import encode
from catenary.errors import CloseCode, ConnectionClosed, LogError
from catenary.serving.admission import Admission, Refusal, new_connection_id
from catenary.serving.plain import PlainTransport
from catenary.serving.query import Wanted
from catenary.session import ClientMessage, Session
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
            connection = self._new_connection(request, is_known=identity is not None)
            if identity is not None:
                await self._prepare(connection, identity, wanted)
            elif self._is_crowded():
                raise Refusal(429, "too_many", "too many unauthenticated connections")
        except Refusal as refusal:
            await _refuse(scope, receive, send, refusal, offers_subprotocol=offers)
            return
        await self._open(connection, scope, receive, send, wanted, SUBPROTOCOL if offers else None)

    def _is_crowded(self) -> bool:
        manager = self._factory.manager
        return manager.waiting_for_auth >= manager.limits.unauthenticated_connections

    def _new_connection(self, request: HTTPConnection, *, is_known: bool) -> Connection:
        manager = self._factory.manager
        hub = manager.hub()
        session = Session(
            new_connection_id(), manager.limits, now=hub.loop.time(), is_authenticated=is_known
        )
        connection = Connection(
            hub,
            session,
            on_message=self._control.handle,
            on_closed=self._closed,
        )
        if self._admission.authenticator.needs_request:
            connection.request = request
        return connection

    async def _prepare(self, connection: Connection, identity: Identity, wanted: Wanted) -> None:
        admitted = await self._admission.admit(identity, wanted)
        connection.may_write = admitted.may_write
        connection.lives_until = lives_until(identity, self._factory.limits)
        try:
            connection.prepared = await connection.find_place(
                identity,
                log_id=admitted.log_id,
                after=wanted.after,
                thread_ids=wanted.thread_ids,
            )
        except LogError as error:
            logger.warning("the log of %s cannot be read: %s", admitted.log_id, error)
            raise Refusal(503, "not_ready", "the event log cannot be read", retry_after=1) from None

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
        if connection.prepared is not None:
            self._begin(connection, wanted)
        else:
            self._await_auth(connection, wanted, HTTPConnection(scope))
        if plain is not None:
            await plain.serve()

    def _begin(self, connection: Connection, wanted: Wanted) -> None:
        manager = self._factory.manager
        assert connection.identity is not None
        manager.add(connection, connection.identity.user_id)
        if wanted.after not in {"start", "now", "open"}:
            manager.counters.reconnects += 1
        connection.begin()
        logger.info(
            "connected %s of %s after %s",
            connection.session.connection_id, connection.log_id, connection.place,
        )  # fmt: skip

    def _closed(self, connection: Connection, code: int, reason: str) -> None:
        if connection.identity is not None:
            self._factory.manager.remove(connection, connection.identity.user_id)
        logger.info(
            "closed %s of %s with %s %s",
            connection.session.connection_id, connection.log_id, code, reason,
        )  # fmt: skip

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
            await self._prepare(connection, identity, wanted)
        except Refusal as refusal:
            code = refusal.close_code or CloseCode.LOG_UNAVAILABLE
            connection.close(code, refusal.message)
            return
        connection.authenticated(self._control.handle)
        self._begin(connection, wanted)
        connection.release_messages()


async def _refuse(
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

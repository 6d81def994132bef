"""WebSockets of other clients: several streams on one, each of them a cursor of its own."""

from __future__ import annotations

import abc
import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from catenary.connection import Connection
from catenary.control import lives_until
from catenary.errors import CloseCode, LogError
from catenary.serving.admission import Refusal, unreadable
from catenary.serving.awaited import End, PeerGone
from catenary.serving.native import refuse_upgrade
from catenary.serving.turn_store import Begun
from catenary.serving.turn_transport import TurnTransport
from catenary.serving.turns import Asker, Turns
from catenary.session import Session
from catenary.wires.native import SUBPROTOCOL
from catenary.wires.translation import Translation

logger = logging.getLogger("catenary.serving")

STREAMS_LIMIT = 32
"""So many streams one socket may have at a time."""

PING = '{"type":"ping"}'
"""What a browser sends to find out whether a socket lives, for it is not shown the protocol's pings."""

PONG = b'{"type":"pong"}'

OnAbort = Literal["cancel", "detach"]
"""What the abort of a client does: cancel the run, or leave it alone."""

_BEARER = "catenary.bearer."


class SocketStream(TurnTransport):
    """One stream of a turn on a socket that others share."""

    def __init__(self, receiver: Connection, socket: WireSocket, translation: Translation) -> None:
        super().__init__(receiver, socket.receive, socket.send, translation)
        self.socket = socket

    async def _read(self) -> End:
        # Its client says nothing here; the socket ends it.
        await asyncio.get_running_loop().create_future()
        return CloseCode.GOING_AWAY, ""

    async def _beat(self) -> None:
        """The pings of the protocol show that the connection lives."""


class WireSocket(abc.ABC):
    """
    One open WebSocket of a client, for as long as it lives.

    Subclasses say what the client's messages mean, and open streams.
    """

    def __init__(
        self,
        turns: Turns,
        asker: Asker,
        receive: Receive,
        send: Send,
        *,
        on_abort: OnAbort = "cancel",
    ) -> None:
        self.turns = turns
        self.asker = asker
        self.receive = receive
        self.send = send
        self._on_abort = on_abort
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[TurnTransport] = set()
        self._lives_until = lives_until(asker.identity, turns.limits, now=time.time())
        self._rate = Session("wire", turns.limits, now=time.monotonic(), is_authenticated=True)
        self._refused = 0

    async def serve(self) -> None:
        """Take messages until the client goes, then end its streams; the agents go on."""
        try:
            while True:
                message = await self.receive()
                if message["type"] == "websocket.disconnect":
                    return
                text = message.get("text")
                if text is None:
                    text = (message.get("bytes") or b"").decode(errors="replace")
                if not await self._is_allowed(text):
                    return
                if text == PING:
                    await self.put(PONG)
                else:
                    await self.take(text)
        except PeerGone:
            return
        finally:
            for stream in list(self._streams):
                stream.abort()
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _is_allowed(self, text: str) -> bool:
        limit = self.turns.limits.wire_message_bytes
        if len(text) > limit:
            await self.close(CloseCode.TOO_BIG, f"a message has at most {limit:,} bytes")
        elif time.time() > self._lives_until:
            await self.close(CloseCode.TOKEN_EXPIRED, "the credential has expired")
        elif self._is_flood():
            await self.close(CloseCode.RATE_LIMITED, "too many messages a second")
        else:
            return True
        return False

    def _is_flood(self) -> bool:
        """Whether the client goes on and on over the rate; what it asks for is refused before."""
        is_within = self._rate.is_within_rate(time.monotonic())
        self._refused = 0 if is_within else self._refused + 1
        return self._refused > self.turns.limits.refused_messages

    @abc.abstractmethod
    async def take(self, text: str) -> None:
        """Take one message. Must not wait for a handler or a stream: :meth:`start` those."""

    @abc.abstractmethod
    async def refuse(self, name: str, refusal: Refusal) -> None:
        """Say that what was asked for under this name cannot be had."""

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the reading; what goes wrong is told to the client."""
        if len(self._tasks) >= STREAMS_LIMIT:
            work.close()
            many = Refusal(429, "rate_limited", f"at most {STREAMS_LIMIT} streams on one socket")
            work = self.refuse(name, many)
        task = asyncio.ensure_future(self._guarded(name, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refusal as refusal:
            await self._told(name, refusal)
        except LogError as error:
            logger.warning("a turn of %s: %s", self.asker.log_id, error)
            await self._told(name, unreadable())
        except PeerGone:
            return
        except Exception:
            logger.exception("a message of %s could not be handled", self.asker.log_id)
            await self._told(name, Refusal(500, "internal", "the message could not be handled"))

    async def _told(self, name: str, refusal: Refusal) -> None:
        try:
            await self.refuse(name, refusal)
        except PeerGone:
            return

    async def put(self, text: bytes) -> None:
        """
        Send one message.

        Raises:
            PeerGone: If it cannot be sent any more.
        """
        try:
            await self.send({"type": "websocket.send", "text": text.decode()})
        except Exception as error:
            # Each server says with an error of its own class that the peer has gone.
            raise PeerGone from error

    async def close(self, code: int, reason: str) -> None:
        """Close the socket."""
        try:
            await self.send({"type": "websocket.close", "code": int(code), "reason": reason})
        except Exception as error:
            logger.debug("a server refused a close: %r", error)

    async def abort(self, begun: Begun) -> None:
        """The client wants no more of a turn: cancel its runs, or leave them, as configured."""
        if self._on_abort == "cancel":
            await self.turns.stop(self.asker, begun.thread_id)

    async def stream(
        self,
        begun: Begun,
        after: str | None,
        made: Callable[[Connection], TurnTransport],
    ) -> None:
        """Stream a turn until it stops, or the socket is closed."""
        connection = await self.turns.open(self.asker, begun, after)
        transport = made(connection)
        connection.transport = transport
        self._streams.add(transport)
        try:
            self.turns.start(connection, self.asker, begun)
            await transport.serve()
        finally:
            self._streams.discard(transport)


class WireEndpoint:
    """An ASGI application for the WebSockets of one wire."""

    def __init__(self, turns: Turns, made: Callable[[Asker, Receive, Send], WireSocket]) -> None:
        self._turns = turns
        self._made = made
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        offers = scope.get("subprotocols", ())
        try:
            asker = await self._turns.asker(HTTPConnection(scope))
            self._check_crowd(asker)
        except Refusal as refusal:
            await refuse_upgrade(
                scope, receive, send, refusal, offers_subprotocol=SUBPROTOCOL in offers
            )
            return
        allow = scope.get("extensions", {}).get("catenary.allow_messages")
        if allow is not None:
            allow(self._turns.limits.wire_message_bytes)
        await receive()
        await send({"type": "websocket.accept", "subprotocol": _chosen(offers)})
        user_id = asker.identity.user_id
        self._open[user_id] += 1
        try:
            await self._made(asker, receive, send).serve()
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

    def _check_crowd(self, asker: Asker) -> None:
        limit = self._turns.limits.connections_per_user
        if self._open[asker.identity.user_id] >= limit:
            raise Refusal(429, "too_many", f"over {limit} connections", retry_after=5)


def _chosen(offers: list[str]) -> str | None:
    """Return a subprotocol of the client's, for a browser wants one; never its credential."""
    return next((offer for offer in offers if not offer.startswith(_BEARER)), None)

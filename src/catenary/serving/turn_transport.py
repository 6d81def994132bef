"""Transports that speak another client's language: a turn as it is read from the log."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from catenary.connection import Connection
from catenary.errors import CloseCode
from catenary.serving.awaited import AwaitedTransport, End, PeerGone
from catenary.serving.sse import HEADERS
from catenary.serving.turn_store import Begun
from catenary.serving.turns import Asker, Turns
from catenary.wires.native import payload_of, split_frames
from catenary.wires.translation import Problem, Said, Translation

_BODY = "http.response.body"
_HEARTBEAT = b'{"type":"heartbeat"'


class TurnTransport(AwaitedTransport):
    """
    One stream of a turn, as a :class:`catenary.transport.Transport`.

    The connection behind it is a cursor like any other: it stops when its
    reader does not read, is counted among its user's, has heartbeats, and is
    closed in a drain. What it writes is translated here.
    """

    def __init__(
        self, receiver: Connection, receive: Receive, send: Send, translation: Translation
    ) -> None:
        super().__init__(receiver, receive, send)
        self.translation = translation
        self._patience = self._loop.call_later(
            receiver.hub.limits.start_patience, self._give_up_waiting
        )

    def _give_up_waiting(self) -> None:
        if not self.translation.encoder.turn.is_started:
            self.translation.problem = Problem.SILENCE
            self.close(CloseCode.NORMAL, "")

    def pause_reading(self) -> None:
        """The client says nothing on this stream."""

    def resume_reading(self) -> None:
        """The client says nothing on this stream."""

    async def serve(self) -> None:
        """Serve the stream until it ends."""
        try:
            await super().serve()
        finally:
            self._patience.cancel()

    async def _send_data(self, data: bytes) -> None:
        for frame in split_frames(data):
            payload = payload_of(frame)
            if payload.startswith(_HEARTBEAT):
                await self._beat()
            said = self.translation.take(payload)
            if said:
                await self._say(said)
            self._took(len(frame))
            if self.translation.is_done or self.translation.problem is not None:
                self.close(CloseCode.NORMAL, "")
                return

    async def _send_end(self, code: int, reason: str) -> None:
        if self.translation.is_done:
            await self._finish()
        else:
            await self._break_off(self.translation.problem or reason or "the connection ends")

    @abc.abstractmethod
    async def _say(self, said: Sequence[Said]) -> None:
        """Send frames."""

    @abc.abstractmethod
    async def _beat(self) -> None:
        """Show that the connection lives, in a way that the client ignores."""

    @abc.abstractmethod
    async def _finish(self) -> None:
        """End the stream, after its last frame."""

    @abc.abstractmethod
    async def _break_off(self, problem: str) -> None:
        """End the stream although the turn goes on, so that the client knows."""


class EventStream(TurnTransport):
    """The body of one HTTP response: server-sent events without names."""

    last = b""
    """What comes after the last frame."""

    async def start(self, headers: dict[str, str]) -> None:
        """
        Send the head of the response.

        Raises:
            PeerGone: If the client has gone meanwhile.
        """
        raw = [(name.encode(), value.encode()) for name, value in {**HEADERS, **headers}.items()]
        await self._put({"type": "http.response.start", "status": 200, "headers": raw})
        # A body that has begun lets proxies pass the head on.
        await self._put({"type": _BODY, "body": b": catenary\n\n", "more_body": True})

    async def _read(self) -> End:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return CloseCode.GOING_AWAY, ""

    async def _say(self, said: Sequence[Said]) -> None:
        body = b"".join(b"data: %b\n\n" % one.frame for one in said)
        await self._put({"type": _BODY, "body": body, "more_body": True})

    async def _beat(self) -> None:
        await self._put({"type": _BODY, "body": b": heartbeat\n\n", "more_body": True})

    async def _finish(self) -> None:
        await self._put({"type": _BODY, "body": self.last, "more_body": False})

    async def _break_off(self, problem: str) -> None:
        """Leave the body unfinished: a client takes a finished one for the whole answer."""
        self.abort()


class TurnResponse(Response):
    """A response that is a turn: it streams until that stops, or its client goes."""

    def __init__(
        self,
        turns: Turns,
        asker: Asker,
        begun: Begun,
        connection: Connection,
        translation: Translation,
        *,
        transport: type[EventStream],
        headers: dict[str, str],
        first: Sequence[Said] = (),
    ) -> None:
        super().__init__()
        self._turns = turns
        self._asker = asker
        self._begun = begun
        self._connection = connection
        self._translation = translation
        self._transport = transport
        self._head = headers
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream. A client that goes cancels nothing: the agent goes on."""
        connection = self._connection
        transport = self._transport(connection, receive, send, self._translation)
        connection.transport = transport
        try:
            await transport.start(self._head)
            if self._first:
                await transport._say(self._first)
        except PeerGone:
            connection.give_up()
            return
        except asyncio.CancelledError:
            connection.give_up()
            raise
        self._turns.start(connection, self._asker, self._begun)
        await transport.serve()

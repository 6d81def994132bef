"""``/ws/ai-sdk``: chats of the AI SDK on one WebSocket, for ``WebSocketChatTransport``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.types import Receive, Send

from catenary.connection import Connection
from catenary.errors import CloseCode
from catenary.serving.admission import Refusal
from catenary.serving.ai_sdk import Stream, resumed, sent
from catenary.serving.turn_store import Begun
from catenary.serving.turns import Asker, Turns
from catenary.serving.wire_socket import OnAbort, SocketStream, WireSocket
from catenary.wires.translation import Said, Translation


class _Frame(msgspec.Struct, kw_only=True):
    """
    What of a client's message says what to do; the rest is a message as over HTTP.

    A client that comes back by itself asks for ``places``: each chunk then has
    its own, and the request that is sent again after a cut says ``after`` which.
    """

    type: str
    requestId: str  # noqa: N815 - the wire's word
    id: str = ""
    places: bool = False
    after: str | None = None


class _Request:
    """One request of a client, until its stream has ended."""

    def __init__(self, frame: _Frame) -> None:
        self.name = frame.requestId
        self.comes_back = frame.places
        self.begun: Begun | None = None
        self.stream: SocketStream | None = None
        self.is_aborted = False


class AiSdkSocket(WireSocket):
    """One socket of ``WebSocketChatTransport``: requests by id, each with a stream."""

    def __init__(
        self, turns: Turns, asker: Asker, receive: Receive, send: Send, *, on_abort: OnAbort
    ) -> None:
        super().__init__(turns, asker, receive, send, on_abort=on_abort)
        self._requests: dict[str, _Request] = {}

    async def take(self, text: str) -> None:
        """Take a send, a resume or an abort."""
        try:
            frame = msgspec.json.decode(text, type=_Frame)
        except (msgspec.DecodeError, RecursionError):
            # Without a request nobody can be told.
            return
        request = self._requests.get(frame.requestId)
        if frame.type == "abort":
            if request is not None:
                self.start(frame.requestId, self._aborted(request))
        elif request is not None:
            twice = Refusal(409, "id_conflict", "this request was sent before")
            await self.refuse(frame.requestId, twice)
        elif frame.type in {"send", "resume"}:
            request = self._requests[frame.requestId] = _Request(frame)
            self.start(frame.requestId, self._serve(frame, request, text))
        else:
            unknown = Refusal(400, "unknown_type", f"unknown type {frame.type[:40]!r}")
            await self.refuse(frame.requestId, unknown)

    async def _serve(self, frame: _Frame, request: _Request, text: str) -> None:
        try:
            self.turns.admission.check_ready()
            self.turns.check_rate(self.asker)
            stream = await (
                resumed(self.turns, self.asker, frame.id, frame.after)
                if frame.type == "resume"
                else sent(self.turns, self.asker, self.turns.checked(text))
            )
            if stream is None:
                await self.put(_frame("no-active", frame.requestId))
                return
            request.begun = stream.begun
            if request.is_aborted:
                await self._stop(request)
                return
            await self.put(_frame("start", frame.requestId))
            await self._streamed(stream, request)
        finally:
            del self._requests[frame.requestId]

    async def _streamed(self, stream: Stream, request: _Request) -> None:
        def made(connection: Connection) -> SocketStream:
            request.stream = _Stream(connection, self, stream.translation, request)
            return request.stream

        if stream.translation.is_done:
            await self.put(_frame("end", request.name))
        else:
            await self.stream(stream.begun, stream.after, made)

    async def _aborted(self, request: _Request) -> None:
        """Stop to send; the run is cancelled, or goes on, as configured."""
        request.is_aborted = True
        if request.stream is not None:
            request.stream.abort()
        if request.begun is not None:
            await self._stop(request)

    async def _stop(self, request: _Request) -> None:
        assert request.begun is not None
        await self.abort(request.begun)
        if request.comes_back:
            # Else it would come back, to abort it again.
            await self.put(_frame("end", request.name))

    async def refuse(self, name: str, refusal: Refusal) -> None:
        """Say that a request failed, or to come back."""
        request = self._requests.get(name)
        if request is not None and request.comes_back and refusal.retry_after is not None:
            await self.close(CloseCode.OVERLOADED, refusal.message)
        else:
            await self.put(_frame("error", name, errorText=refusal.message))


class _Stream(SocketStream):
    """The chunks of one request, numbered from 0."""

    def __init__(
        self,
        receiver: Connection,
        socket: WireSocket,
        translation: Translation,
        request: _Request,
    ) -> None:
        super().__init__(receiver, socket, translation)
        self._request = request
        self._named = msgspec.json.encode(request.name)
        self._sequence = 0

    async def _say(self, said: Sequence[Said]) -> None:
        for one in said:
            place = b""
            if self._request.comes_back:
                place = b'"place":%b,' % msgspec.json.encode(one.place)
            chunk = b'{"type":"chunk","requestId":%b,"sequence":%d,%b"chunk":%b}'
            await self.socket.put(chunk % (self._named, self._sequence, place, one.frame))
            self._sequence += 1

    async def _finish(self) -> None:
        await self.socket.put(_frame("end", self._request.name))

    async def _break_off(self, problem: str) -> None:
        if self._request.comes_back and self.translation.can_go_on:
            await self.socket.close(CloseCode.RESTARTING, problem)
        else:
            await self.socket.put(_frame("error", self._request.name, errorText=problem))


def _frame(type: str, request_id: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"type": type, "requestId": request_id, **fields})

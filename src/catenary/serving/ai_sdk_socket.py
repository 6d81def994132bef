"""``/ws/ai-sdk``: chats of the AI SDK on one WebSocket, for ``WebSocketChatTransport``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.types import Receive, Send

from catenary.connection import Connection
from catenary.serving.admission import Refusal
from catenary.serving.ai_sdk import sent
from catenary.serving.turn_store import Begun
from catenary.serving.turns import Asker, Turns
from catenary.serving.wire_socket import OnAbort, SocketStream, WireSocket
from catenary.wires.ai_sdk import AiSdkTurn
from catenary.wires.translation import Said, Translation


class _Frame(msgspec.Struct, kw_only=True):
    """What of a client's message says what to do; the rest is a message as over HTTP."""

    type: str
    requestId: str  # noqa: N815 - the wire's word
    id: str = ""


class _Request:
    """One request of a client, until its stream has ended."""

    def __init__(self) -> None:
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
            request = self._requests[frame.requestId] = _Request()
            self.start(frame.requestId, self._serve(frame, request, text))
        else:
            unknown = Refusal(400, "unknown_type", f"unknown type {frame.type[:40]!r}")
            await self.refuse(frame.requestId, unknown)

    async def _serve(self, frame: _Frame, request: _Request, text: str) -> None:
        try:
            self.turns.admission.check_ready()
            self.turns.check_rate(self.asker)
            found = await (
                self._resumed(frame)
                if frame.type == "resume"
                else sent(self.turns, self.asker, self.turns.checked(text))
            )
            if found is None:
                await self.put(_frame("no-active", frame.requestId))
                return
            begun, translation, after = found
            request.begun = begun
            if request.is_aborted:
                await self.abort(begun)
                return
            await self.put(_frame("start", frame.requestId))

            def made(connection: Connection) -> SocketStream:
                request.stream = _Stream(connection, self, translation, frame.requestId)
                return request.stream

            await self.stream(begun, after, made)
        finally:
            del self._requests[frame.requestId]

    async def _resumed(self, frame: _Frame) -> tuple[Begun, Translation, str | None] | None:
        if not await self.turns.may_use(self.asker, frame.id):
            return None
        found = await self.turns.active(self.asker, frame.id)
        if found is None:
            return None
        begun, turn = found
        return begun, Translation(AiSdkTurn(begun.turn()), stops_from=turn.next_stop), None

    async def _aborted(self, request: _Request) -> None:
        """Stop to send; the run is cancelled, or goes on, as configured."""
        request.is_aborted = True
        if request.stream is not None:
            request.stream.abort()
        if request.begun is not None:
            await self.abort(request.begun)

    async def refuse(self, name: str, refusal: Refusal) -> None:
        """Say that a request failed."""
        await self.put(_frame("error", name, errorText=refusal.message))


class _Stream(SocketStream):
    """The chunks of one request, numbered from 0."""

    def __init__(
        self, receiver: Connection, socket: WireSocket, translation: Translation, request_id: str
    ) -> None:
        super().__init__(receiver, socket, translation)
        self._request_id = request_id
        self._named = msgspec.json.encode(request_id)
        self._sequence = 0

    async def _say(self, said: Sequence[Said]) -> None:
        for one in said:
            chunk = b'{"type":"chunk","requestId":%b,"sequence":%d,"chunk":%b}'
            await self.socket.put(chunk % (self._named, self._sequence, one.frame))
            self._sequence += 1

    async def _finish(self) -> None:
        await self.socket.put(_frame("end", self._request_id))

    async def _break_off(self, problem: str) -> None:
        await self.socket.put(_frame("error", self._request_id, errorText=problem))


def _frame(type: str, request_id: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"type": type, "requestId": request_id, **fields})

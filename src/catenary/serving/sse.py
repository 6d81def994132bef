"""``/sse``: the native messages as server-sent events."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from catenary.connection import Connection
from catenary.errors import CloseCode, UsageError
from catenary.position import Position
from catenary.serving.admission import Admission, Refusal
from catenary.serving.awaited import AwaitedTransport, End, PeerGone
from catenary.serving.query import Wanted
from catenary.session import ClientMessage
from catenary.wires.native import payload_of, split_frames
from catenary.wires.sse import RETRY, closing_message, sse_message

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
"""No proxy may keep, compress or gather the stream."""

_BODY = "http.response.body"


class SseTransport(AwaitedTransport):
    """The body of one HTTP response, as a :class:`catenary.transport.Transport`."""

    def pause_reading(self) -> None:
        """The client says nothing here."""

    def resume_reading(self) -> None:
        """The client says nothing here."""

    async def start(self) -> None:
        """
        Send the head of the response.

        Raises:
            PeerGone: If the client has gone meanwhile.
        """
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        await self._put({"type": "http.response.start", "status": 200, "headers": headers})
        await self._put({"type": _BODY, "body": RETRY, "more_body": True})

    async def _read(self) -> End:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return CloseCode.GOING_AWAY, ""

    async def _send_data(self, data: bytes) -> None:
        body = b"".join(sse_message(payload_of(frame)) for frame in split_frames(data))
        await self._put({"type": _BODY, "body": body, "more_body": True})
        self._took(len(data))

    async def _send_end(self, code: int, reason: str) -> None:
        # Before a planned close the connection has said `closing` itself.
        last = b""
        if code != CloseCode.RESTARTING:
            is_final = code in list(CloseCode) and CloseCode(code).is_final
            last = closing_message(code, reason, is_final=is_final)
        await self._put({"type": _BODY, "body": last, "more_body": False})


class SseEndpoint:
    """Answers a request for the events of a user as they come."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def __call__(self, request: Request) -> Response:
        """
        Return the response that streams.

        Raises:
            Refusal: With 400, 401 or 403, after which an ``EventSource`` stays away.
        """
        if request.method == "HEAD":
            return Response(headers=HEADERS)
        try:
            self._admission.check_ready()
            wanted = self._wanted(request)
            identity = await self._admission.require(request)
            connection = self._admission.new_connection(
                request, on_message=_no_messages, is_authenticated=True
            )
            await self._admission.prepare(connection, identity, wanted)
        except Refusal as refusal:
            if refusal.status == 503:
                # At any other status an EventSource gives up for ever.
                return Response(RETRY, headers=HEADERS)
            raise
        return _Stream(self._admission, connection, wanted)

    def _wanted(self, request: Request) -> Wanted:
        wanted = self._admission.wanted(request)
        last_id = request.headers.get("last-event-id")
        if not last_id:
            return wanted
        try:
            Position.parse(last_id)
        except UsageError as error:
            raise Refusal(400, "bad_request", f"Last-Event-ID: {error}") from None
        return Wanted(after=last_id, log_id=wanted.log_id, thread_ids=wanted.thread_ids)


class _Stream(Response):
    """The response: a connection that lives as long as it is being sent."""

    def __init__(self, admission: Admission, connection: Connection, wanted: Wanted) -> None:
        super().__init__(headers=HEADERS)
        self._admission = admission
        self._connection = connection
        self._wanted = wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the connection until it ends."""
        connection = self._connection
        transport = connection.transport = SseTransport(connection, receive, send)
        try:
            await transport.start()
        except PeerGone:
            connection.give_up()
            return
        except asyncio.CancelledError:
            connection.give_up()
            raise
        self._admission.begin(connection, self._wanted)
        await transport.serve()


def _no_messages(connection: Connection, message: ClientMessage) -> None:
    """A stream of server-sent events has no way for them."""

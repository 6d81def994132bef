"""Client messages and tickets over HTTP, with the user's own credentials."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catenary.auth import Identity
from catenary.connection import Connection
from catenary.context import ConnectionStatus
from catenary.control import Control
from catenary.errors import CloseCode
from catenary.lanes import Lanes
from catenary.serving.admission import Admission, Refusal
from catenary.serving.answers import answer, raw_answer, read_body, read_json
from catenary.session import ClientMessage, Session
from catenary.tickets import FIRST_USE, Purpose, Tickets
from catenary.wires.native import payload_of

BODY_LIMIT_BYTES = 1024 * 1024
"""A body over it is not read; below, a message over its own limit is answered."""

SENDERS_REMEMBERED = 10_000

STATUSES = {
    "bad_json": HTTPStatus.BAD_REQUEST,
    "bad_message": HTTPStatus.BAD_REQUEST,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
    "unknown_type": HTTPStatus.NOT_FOUND,
    "not_found": HTTPStatus.NOT_FOUND,
    "forbidden": HTTPStatus.FORBIDDEN,
    "id_conflict": HTTPStatus.CONFLICT,
    "interrupted": HTTPStatus.CONFLICT,
    "handler_timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "overloaded": HTTPStatus.SERVICE_UNAVAILABLE,
}


class _Head(msgspec.Struct):
    type: str
    code: str | None = None


class _TicketWish(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    purpose: Purpose


class _Sender(NamedTuple):
    """What holds for all messages of one user, as it does for those of one connection."""

    session: Session
    lanes: Lanes


class Messages:
    """
    ``POST /api/messages``: one client message, answered as on the native wire.

    Each is taken by a connection of its own, which lives as long as the
    request; the rate and the order hold for all of a user's together.
    """

    def __init__(self, admission: Admission, control: Control) -> None:
        self._admission = admission
        self._factory = admission.factory
        self._control = control
        self._senders: OrderedDict[str, _Sender] = OrderedDict()

    async def __call__(self, request: Request) -> Response:
        """Take one message; the status says what its answer says."""
        self._admission.check_ready()
        wanted = self._admission.wanted(request)
        identity = await self._admission.require(request)
        admitted = await self._admission.admit(identity, wanted)
        body = await read_body(request, BODY_LIMIT_BYTES)
        reply = _Reply()
        connection = self._connection(identity, reply)
        connection.log_id = admitted.log_id
        connection.may_write = admitted.may_write
        connection.place = await self._factory.log.head(admitted.log_id)
        try:
            connection.message_received(body.decode())
        except UnicodeDecodeError:
            raise Refusal(400, "bad_json", "a message is UTF-8") from None
        # A refused message ends no conversation here: the next request begins one.
        connection.session.status = ConnectionStatus.CONNECTING
        return _answered(await reply.arrived)

    def _connection(self, identity: Identity, reply: _Reply) -> Connection:
        hub = self._factory.manager.hub()
        sender = self._senders.pop(identity.user_id, None) or _Sender(
            Session("http", self._factory.limits, now=hub.loop.time(), is_authenticated=True),
            Lanes(),
        )
        self._senders[identity.user_id] = sender
        if len(self._senders) > SENDERS_REMEMBERED:
            self._senders.popitem(last=False)
        connection = Connection(
            hub, sender.session, on_message=self._take, on_closed=lambda *_: None
        )
        connection.identity = identity
        connection.lanes = sender.lanes
        connection.transport = reply
        return connection

    def _take(self, connection: Connection, message: ClientMessage) -> None:
        if message.type == "auth":
            text = "auth belongs to a connection; here each request bears its credentials"
            connection.close(CloseCode.PROTOCOL_ERROR, text)
        else:
            self._control.handle(connection, message)


def _answered(payload: bytes) -> Response:
    head = msgspec.json.decode(payload, type=_Head)
    if head.type != "error":
        return raw_answer(payload)
    status = STATUSES.get(head.code or "", HTTPStatus.INTERNAL_SERVER_ERROR)
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        return raw_answer(payload, status, retry_after="1")
    return raw_answer(payload, status)


class _Reply:
    """A transport that takes one message: the answer."""

    is_paused = False
    bytes_taken = 0
    buffered_bytes = 0
    last_heard = 0.0

    def __init__(self) -> None:
        self.arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        """Take the answer."""
        if not self.arrived.done():
            self.arrived.set_result(payload_of(data))

    def close(self, code: int, reason: str) -> None:
        """Take the end of the conversation as the answer to this message."""
        word = "rate_limited" if code == CloseCode.RATE_LIMITED else "bad_message"
        if not self.arrived.done():
            refusal = {"type": "error", "code": word, "message": reason}
            self.arrived.set_result(msgspec.json.encode(refusal))

    def abort(self) -> None:
        """Nothing is held."""

    def ping(self) -> None:
        """Nobody listens."""

    def pause_reading(self) -> None:
        """There is one message only."""

    def resume_reading(self) -> None:
        """There is one message only."""


class TicketOffice:
    """``POST /api/tickets``: what a URL may carry instead of a token."""

    def __init__(self, admission: Admission, tickets: Tickets) -> None:
        self._admission = admission
        self._tickets = tickets

    async def __call__(self, request: Request) -> Response:
        """Issue one ticket for whoever the request's credentials name."""
        identity = await self._admission.require(request)
        wish = await read_json(request, _TicketWish)
        ticket = await self._tickets.issue(identity, purpose=wish.purpose)
        return answer({"ticket": ticket, "expires_in": int(FIRST_USE)}, 201)

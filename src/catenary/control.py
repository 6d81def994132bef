"""What a connection's messages ask of the bridge; commands go to their handlers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from catenary.answering import Answering
from catenary.auth import Authenticator, Identity
from catenary.connection import Connection
from catenary.errors import AuthError, CloseCode, LogError, ProtocolError, UsageError
from catenary.eventlog.model import CancelOutcome
from catenary.inbound import MessageHandlerService, Source
from catenary.lanes import Lanes
from catenary.limits import Limits
from catenary.position import Position
from catenary.session import ClientMessage, error_frame
from catenary.wires.native import control_frame, text_frame

logger = logging.getLogger("catenary.control")


class Control:
    """
    The conversation of connections beside their events.

    Messages of one connection and thread are handled one after another;
    ``position``, ``auth``, ``cancel_run`` and ``answer`` never wait behind a
    handler.
    """

    def __init__(
        self, service: MessageHandlerService, authenticator: Authenticator, limits: Limits
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._limits = limits
        self._answering = Answering(service)
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, connection: Connection, message: ClientMessage) -> None:
        """Take one well-formed message of an authenticated connection."""
        if message.type == "position":
            self._start(self._note_position(connection, message), connection, message)
        elif message.type == "auth":
            self._start(self._renew(connection, message), connection, message)
        elif message.type == "cancel_run":
            self._start(self._cancel_run(connection, message), connection, message)
        elif message.type == "answer":
            self._start(self._answer(connection, message), connection, message)
        else:
            self._enqueue(connection, message)

    def _start(
        self, work: Coroutine[Any, Any, None], connection: Connection, message: ClientMessage
    ) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, connection, message))
        return task

    def _ended(
        self, task: asyncio.Task[None], connection: Connection, message: ClientMessage
    ) -> None:
        """Answer also where the work could not: every message gets an answer."""
        self._tasks.discard(task)
        if task.cancelled():
            text = "its handling was given up"
            connection.answer(error_frame(message.id, "interrupted", text))
        elif task.exception() is not None:
            logger.error("a client's message could not be handled", exc_info=task.exception())
            text = "the message could not be handled"
            connection.answer(error_frame(message.id, "handler_failed", text))

    # Commands

    def _enqueue(self, connection: Connection, message: ClientMessage) -> None:
        lanes = connection.lanes = connection.lanes or Lanes()
        if lanes.waiting >= self._limits.commands_waiting:
            text = f"{lanes.waiting} messages are waiting; send fewer at a time"
            connection.answer(error_frame(message.id, "rate_limited", text))
            return
        lanes.waiting += 1
        former = lanes.last.get(message.thread_id)
        task = self._start(self._command(connection, message, former), connection, message)
        lanes.last[message.thread_id] = task
        task.add_done_callback(lambda done: lanes.leave(message.thread_id, done))

    async def _command(
        self, connection: Connection, message: ClientMessage, former: asyncio.Task[None] | None
    ) -> None:
        if former is not None:
            await asyncio.wait([former])
        if self._may_write(connection, message):
            source = _source(connection)
            connection.answer(text_frame(await self._service.handle(source, message)))

    def _may_write(self, connection: Connection, message: ClientMessage) -> bool:
        if not connection.may_write:
            text = "this log may only be read"
            connection.answer(error_frame(message.id, "forbidden", text))
        return connection.may_write

    # Control

    async def _note_position(self, connection: Connection, message: ClientMessage) -> None:
        try:
            place = Position.parse(message.position or "")
        except UsageError as error:
            connection.answer(error_frame(message.id, "bad_message", str(error)))
            return
        reached = connection.place
        if place.epoch == reached.epoch and place.seq > reached.seq:
            text = f"nothing beyond {reached} was sent on this connection"
            connection.answer(error_frame(message.id, "bad_message", text))
            return
        try:
            await self._service.manager.log.note_seen(connection.log_id, place)
        except LogError as error:
            self._unavailable(connection, message, error)
            return
        connection.answer(control_frame({"type": "position_ok", "position": str(place)}))

    def _unavailable(self, connection: Connection, message: ClientMessage, error: LogError) -> None:
        logger.warning("%s of %s: %s", message.type, connection.log_id, error)
        text = "the event log cannot be written; try again"
        connection.answer(error_frame(message.id, "overloaded", text))

    async def _renew(self, connection: Connection, message: ClientMessage) -> None:
        counters = self._service.manager.counters
        try:
            identity = await self._authenticator.verify_token(
                message.token or "", connection.request
            )
        except AuthError as error:
            counters.authentications[error.reason] += 1
            connection.answer(error_frame(message.id, "forbidden", str(error)))
            return
        if connection.identity is None or identity.user_id != connection.identity.user_id:
            counters.authentications["other_user"] += 1
            connection.close(CloseCode.FORBIDDEN, "the token is another user's")
            return
        counters.authentications["ok"] += 1
        connection.identity = identity
        now = self._service.manager.log.now_ms() / 1000
        connection.lives_until = lives_until(identity, self._limits, now=now)
        until = None if identity.expires_at is None else int(identity.expires_at * 1000)
        connection.answer(control_frame({"type": "auth_ok", "id": message.id, "expires_at": until}))

    async def _cancel_run(self, connection: Connection, message: ClientMessage) -> None:
        if not self._may_write(connection, message):
            return
        try:
            outcome = await self._service.manager.log.request_cancel(
                connection.log_id, message.run_id or "", reason=message.reason, by="user"
            )
        except LogError as error:
            self._unavailable(connection, message, error)
            return
        if outcome is CancelOutcome.NOT_FOUND:
            connection.answer(error_frame(message.id, "not_found", "no such run"))
            return
        ended = True if outcome is CancelOutcome.ALREADY_ENDED else None
        connection.answer(control_frame({"type": "ack", "id": message.id, "already_ended": ended}))

    async def _answer(self, connection: Connection, message: ClientMessage) -> None:
        if not self._may_write(connection, message):
            return
        try:
            outcome = await self._answering.take(
                _source(connection), message.request_id or "", message.answer, str(message.id)
            )
        except ProtocolError as error:
            connection.answer(error_frame(message.id, error.code, error.message))
        except LogError as error:
            self._unavailable(connection, message, error)
        else:
            ack = {"type": "ack", "id": message.id}
            if not outcome.is_first:
                ack |= {"already_answered": True, "answer": outcome.answer}
            connection.answer(control_frame(ack))


def _source(connection: Connection) -> Source:
    assert connection.identity is not None
    return Source(
        identity=connection.identity,
        log_id=connection.log_id,
        connection_id=connection.session.connection_id,
    )


def lives_until(identity: Identity, limits: Limits, *, now: float) -> float:
    """Return when a connection with this credential must end; seconds since 1970, as ``now``."""
    if identity.expires_at is None:
        return now + limits.credential_lifetime
    return identity.expires_at + limits.credential_grace

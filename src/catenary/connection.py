"""
A connection: a session and a cursor on a transport.

It holds no queue. When its socket is full the cursor stops; the log keeps the
events; when the socket drains the cursor goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from catenary.auth import Identity
from catenary.context import ConnectionStatus
from catenary.errors import CloseCode
from catenary.eventlog.model import Page
from catenary.eventlog.stream import Stream
from catenary.eventlog.terms import Gap
from catenary.hub import Hub
from catenary.lanes import Lanes
from catenary.position import Position
from catenary.record import merge_adjacent
from catenary.replay import TURN_BYTES, replay
from catenary.session import (
    ClientMessage,
    Close,
    Send,
    Session,
    closing_frame,
    gap_frame,
    heartbeat_frame,
)
from catenary.transport import Transport
from catenary.wires.native import event_frame

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

logger = logging.getLogger("catenary.connection")

ANSWERS_BYTES = 1024 * 1024
"""With more than this unsent, nothing more is read from the client until it takes some."""

MessageHandler = Callable[["Connection", ClientMessage], None]


class Connection:
    """
    One reader of one log. Belongs to its loop.

    It is the receiver of its transport: ``message_received``, ``writable`` and
    ``closed`` are called by it.
    """

    __slots__ = (
        "__weakref__",
        "_held",
        "_is_replaying",
        "_on_auth_end",
        "_on_closed",
        "_on_message",
        "_progress_at",
        "_quiet_ticks",
        "_said_live",
        "_taken_before",
        "_wrote",
        "hub",
        "identity",
        "is_reading_paused",
        "lanes",
        "lives_until",
        "log_id",
        "may_write",
        "opened_at",
        "place",
        "prepared",
        "request",
        "session",
        "stream",
        "thread_ids",
        "transport",
    )  # fmt: skip

    def __init__(
        self,
        hub: Hub,
        session: Session,
        *,
        on_message: MessageHandler,
        on_closed: Callable[[Connection, int, str], None],
    ) -> None:
        self.hub = hub
        self.session = session
        self._on_message = on_message
        self._on_closed = on_closed
        self.transport: Transport
        """Set before the first byte can come or go: with the takeover."""
        self.identity: Identity | None = None
        self.log_id = ""
        self.thread_ids: Collection[str] | None = None
        self.stream: Stream | None = None
        self.place = Position("", 0)
        """The cursor: all that is for this reader through here was written."""
        self.prepared: Stream | None = None
        """The stream whose readers it joined, until it begins to read."""
        self.may_write = True
        self._held: list[str | bytes] | None = None
        self._on_auth_end: Callable[[], None] | None = None
        self.lanes: Lanes | None = None
        self.request: HTTPConnection | None = None
        """The handshake, kept where an application's own ``authenticate`` needs it again."""
        self.opened_at = hub.log.now_ms() / 1000
        self.lives_until: float | None = None
        self._said_live = False
        self._is_replaying = False
        self._wrote = False
        self._quiet_ticks = 0
        self._taken_before = 0
        self._progress_at = self.hub.loop.time()
        self.is_reading_paused = False

    # A place in the log

    async def find_place(
        self, identity: Identity, *, log_id: str, after: str, thread_ids: Collection[str] | None
    ) -> Stream:
        """
        Join the readers of a log, at a place.

        The subscription is confirmed before the head is read, so nothing that
        is committed meanwhile is missed. Follow with :meth:`begin`, or with
        :meth:`give_up`.

        Raises:
            UsageError: If ``after`` is no position.
            LogUnavailable: If the log cannot be read now.
        """
        self.identity = identity
        self.log_id = log_id
        self.thread_ids = thread_ids
        try:
            stream = await self.hub.subscribe(log_id, self)
            self.place = await self.hub.log.locate(log_id, after)
        except BaseException:
            self.give_up()
            raise
        return stream

    def give_up(self) -> None:
        """Leave the readers of the log again."""
        self.hub.unsubscribe(self.log_id, self)

    def begin(self) -> None:
        """Say ``connected`` on the transport and begin to read the log."""
        stream, self.prepared = self.prepared, None
        identity = self.identity
        if identity is None or stream is None or self.session.status is ConnectionStatus.CLOSED:
            self.give_up()
            return
        self.stream = stream
        self._write(
            self.session.connected(
                user_id=identity.user_id,
                log_id=self.log_id,
                head=stream.position,
                after=self.place,
            )
        )
        self.pump()

    def failed(self, error: Exception) -> None:
        """A turn raised: that is a defect of ours, which ends this connection alone."""
        logger.error(
            "connection %s of %s failed", self.session.connection_id, self.log_id, exc_info=error
        )
        self.close(CloseCode.INTERNAL, "internal error")

    def pump(self) -> None:
        """Write what this turn allows; go on later with the rest."""
        stream = self.stream
        if stream is None or self._is_replaying or self.transport.is_paused:
            return
        tail = stream.tail
        place = self.place
        got = (
            tail.after(place.seq, TURN_BYTES, self.thread_ids)
            if tail is not None and place.epoch == stream.epoch
            else None
        )
        if got is None:
            self._is_replaying = True
            self.hub.start(asyncio.ensure_future(self._replay(stream)))
            return
        frames, reached = got
        if frames:
            self.transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
            self._wrote = True
            self.hub.counters.events_delivered += len(frames)
        if reached != place.seq:
            self.place = Position(place.epoch, reached)
        if reached < stream.head:
            self.hub.make_ready(self)
        elif not self._said_live:
            self._said_live = True
            self._write(self.session.live(self.place))

    async def _replay(self, stream: Stream) -> None:
        try:
            await replay(self, stream)
        finally:
            self._is_replaying = False
        self.pump()

    def write_page(self, page: Page) -> None:
        """Write a page of the log, merged, and move on to its end."""
        counters = self.hub.counters
        if page.gap is not None:
            self._tell_gap(page.gap)
        if page.records:
            merged = list(merge_adjacent(page.records))
            self.transport.write(b"".join(map(event_frame, merged)))
            self._wrote = True
            counters.events_replayed += len(merged)
            counters.events_delivered += len(merged)
            counters.events_merged += len(page.records) - len(merged)
        self.place = page.place

    def _tell_gap(self, gap: Gap) -> None:
        self.hub.counters.gaps[gap.reason] += 1
        logger.info(
            "gap of %s on %s: %s to %s (%s)",
            self.log_id, self.session.connection_id, gap.after, gap.resumes_at, gap.reason,
        )  # fmt: skip
        self._write(gap_frame(gap))

    # A first message that says who this is

    def await_auth(self, on_message: MessageHandler, on_end: Callable[[], None]) -> None:
        """Give the first message to ``on_message``; ``on_end`` is called once, however it ends."""
        self._on_message = on_message
        self._on_auth_end = on_end

    def hold_messages(self) -> None:
        """Keep what follows until it is known who this is; nothing more is read meanwhile."""
        self._held = []
        self.transport.pause_reading()

    def authenticated(self, on_message: MessageHandler) -> None:
        """It is known who this is: give messages to ``on_message`` from now on."""
        self.session.authenticated()
        self._on_message = on_message
        self._end_auth()

    def release_messages(self) -> None:
        """Take what was held, in order, and read on."""
        held, self._held = self._held, None
        for message in held or ():
            self.message_received(message)
        self.transport.resume_reading()

    def _end_auth(self) -> None:
        on_end, self._on_auth_end = self._on_auth_end, None
        if on_end is not None:
            on_end()

    # What the transport says

    def message_received(self, message: str | bytes) -> None:
        """Take one message of the client."""
        if self.session.status is ConnectionStatus.CLOSED:
            return
        if self._held is not None:
            self._held.append(message)
            return
        action = self.session.receive(message, self.hub.loop.time(), self.hub.log.now_ms())
        if isinstance(action, Send):
            self.hub.counters.inbound["answered"] += 1
            self.answer(action.frame)
        elif isinstance(action, Close):
            self.close(action.code, action.reason)
        else:
            self._on_message(self, action.message)

    def writable(self) -> None:
        """The socket has drained."""
        if self.is_reading_paused:
            self.is_reading_paused = False
            self.transport.resume_reading()
        self.pump()

    def closed(self, code: int, reason: str) -> None:
        """The transport is gone."""
        if self.session.status is ConnectionStatus.CLOSED:
            return
        self.session.status = ConnectionStatus.CLOSED
        self._end_auth()
        self.stream = None
        self.hub.unsubscribe(self.log_id, self)
        self.hub.counters.closes[code] += 1
        self._on_closed(self, code, reason)

    # What the bridge says

    def _write(self, frame: bytes) -> None:
        self.transport.write(frame)
        self._wrote = True

    def answer(self, frame: bytes) -> None:
        """Write an answer; a client that takes none is not read from any more."""
        if self.session.status is ConnectionStatus.CLOSED:
            return
        self._write(frame)
        if self.transport.buffered_bytes > ANSWERS_BYTES and not self.is_reading_paused:
            self.is_reading_paused = True
            self.transport.pause_reading()

    def close(self, code: CloseCode, reason: str) -> None:
        """Close with a code of the wire."""
        if self.session.status in (ConnectionStatus.CLOSED, ConnectionStatus.CLOSING):
            return
        self.session.status = ConnectionStatus.CLOSING
        self.stream = None
        self.transport.close(code, reason)

    def say_closing(self, reason: str, reconnect_after: float) -> None:
        """Announce a planned close, and make it."""
        if self.session.status in (ConnectionStatus.CLOSED, ConnectionStatus.CLOSING):
            return
        self._write(closing_frame(reason, reconnect_after))
        self.close(CloseCode.RESTARTING, reason)

    # Time

    def expire(self, now: float) -> None:
        """Close once the credential has ended; ``now`` in seconds since 1970."""
        if self.lives_until is not None and now >= self.lives_until:
            self.close(CloseCode.TOKEN_EXPIRED, "the credential has expired; come with a fresh one")

    def tick(self, now: float, interval: float, ticks: int) -> None:
        """
        Do what time asks for; called ``ticks`` times an interval.

        A heartbeat after an interval without a message; a ping after an
        interval without a byte; and a peer is dead after 2.5 intervals in which
        nothing came and a full socket took nothing.
        """
        transport = self.transport
        if self._wrote:
            self._wrote = False
            self._quiet_ticks = 0
        else:
            self._quiet_ticks += 1
            if self._quiet_ticks >= ticks and self.stream is not None and not transport.is_paused:
                self._quiet_ticks = 0
                self.transport.write(heartbeat_frame(self.place, self.hub.log.now_ms()))
        # Looked at each time: what was taken long ago is no sign of life now.
        taken = transport.bytes_taken
        if transport.buffered_bytes and taken > self._taken_before:
            self._progress_at = now
        self._taken_before = taken
        heard = transport.last_heard
        if now - heard < interval:
            return
        transport.ping()
        if now - max(heard, self._progress_at) > 2.5 * interval:
            logger.info("connection %s of %s is dead", self.session.connection_id, self.log_id)
            self.session.status = ConnectionStatus.CLOSING
            transport.abort()

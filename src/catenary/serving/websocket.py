"""
The WebSocket protocol class for uvicorn: a server's side of RFC 6455.

Inbound frames and the closing handshake are read by the ``websockets``
package's sans-I/O protocol; the opening handshake and outbound frames are
made here, for they are on the fast path.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.protocol import CLOSED, CLOSING, CONNECTING, OPEN, State

from catenary.errors import CloseCode
from catenary.serving.websocket_asgi import Conversation
from catenary.serving.websocket_handshake import (
    HandshakeRefused,
    UpgradeRequest,
    accept_key,
    read_request,
    refusal,
)
from catenary.serving.websocket_inbound import Inbound
from catenary.serving.websocket_socket import Addresses, addresses, tune
from catenary.transport import Receiver

_LOG = logging.getLogger("catenary.serving")

_EARLY_LIMIT_BYTES = 64 * 1024
_PING = b"\x89\x00"


class WebSocketProtocol(asyncio.Protocol):
    """
    One WebSocket connection, from the upgrade request on; a ``Transport`` too.

    Give the class to uvicorn as ``ws=``. It is a complete ASGI WebSocket
    server. Beyond that, ``scope["extensions"]["catenary.takeover"]`` is::

        takeover(receiver, *, subprotocol=None, headers=()) -> Transport

    An endpoint calls it on the loop instead of sending ``websocket.accept``
    and returns; from then on the receiver is called with what arrives, and no
    task exists for the connection. It raises ``ConnectionClosed`` if the peer
    has gone meanwhile, and ``UsageError`` if the handshake was answered before.

    Attributes:
        max_message_bytes: A message over it closes the connection with 1009; an
            endpoint sets another limit with ``catenary.allow_messages(limit_bytes)``.
        close_timeout: How long a closing may take before it is cut, in seconds.
    """

    __slots__ = (
        "_app_state",
        "_config",
        "_deadline",
        "_early",
        "_inbound",
        "_is_paused",
        "_is_ping_outstanding",
        "_last_heard",
        "_late_pong",
        "_loop",
        "_message_limit_bytes",
        "_pongs",
        "_receiver",
        "_server_state",
        "_state",
        "_taken",
        "_transport",
        "_written",
    )

    max_message_bytes = 1024 * 1024
    close_timeout = 5.0

    _transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._state: State = CONNECTING
        self._receiver: Receiver | None = None
        self._inbound: Inbound | None = None
        self._message_limit_bytes = self.max_message_bytes
        self._early: bytearray | None = None
        self._pongs = 0
        self._is_paused = False
        self._is_ping_outstanding = False
        self._late_pong: bytes | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._last_heard = 0.0
        self._written = 0
        self._taken = 0

    # The opening.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin on a transport whose upgrade request has been read."""
        self._transport = cast("asyncio.Transport", transport)
        self._last_heard = self._loop.time()
        tune(self._transport)
        self._server_state.connections.add(cast("Any", self))

    def request_received(self, request: UpgradeRequest, ends: Addresses, rest: bytes) -> None:
        """
        Check the handshake, and call the application with it.

        ``rest`` is what followed the request in the same packet: frames of a
        peer that did not wait for the answer.
        """
        try:
            accept = accept_key(request)
            conversation = Conversation(self, self._config, accept)
            scope = conversation.scope(request, ends, self._app_state)
        except HandshakeRefused as refused:
            self.refuse(refused.response())
            return
        self._early = bytearray(rest)
        self._receiver = conversation
        conversation.start(scope, self._server_state.tasks)

    def open(self, receiver: Receiver, response: bytes) -> None:
        """Send the 101 and give what comes to ``receiver``, in place of the former one."""
        self._state = OPEN
        self._receiver = receiver
        self._write(response)
        if self._early:
            # The receiver has no transport before the caller has returned.
            self._loop.call_soon(self._take_early)
        else:
            self._early = None

    def write_response(self, data: bytes) -> None:
        """Send a piece of an HTTP response that refuses the handshake."""
        self._write(data)

    def refuse(self, response: bytes) -> None:
        """Answer the handshake with an HTTP response and close."""
        self._state = CLOSING
        self._early = None
        if response:
            self._write(response)
        self._hang_up()

    def allow_messages(self, limit_bytes: int) -> None:
        """Take messages up to this size; to be called before the handshake is answered."""
        self._message_limit_bytes = limit_bytes

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which everything here runs."""
        return self._loop

    @property
    def is_closing(self) -> bool:
        """Whether the closing began, by either side."""
        return self._state >= CLOSING or self._transport.is_closing()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that this server sends with every answer."""
        return self._server_state.default_headers

    # What the event loop calls.

    def data_received(self, data: bytes) -> None:
        """Take what the socket read."""
        self._last_heard = self._loop.time()
        if self._early is not None:
            self._early += data
            if len(self._early) > _EARLY_LIMIT_BYTES:
                self.pause_reading()
        elif self._state is CONNECTING:
            self._take_request(data)
        elif self._state is not CLOSED:
            self._take(data)

    def eof_received(self) -> None:
        """Close the transport too; what is buffered has until the deadline."""
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the receiver, and let go of everything."""
        self._server_state.connections.discard(cast("Any", self))
        if self._deadline is not None:
            self._deadline.cancel()
        code, reason = (1006, "") if self._inbound is None else self._inbound.first_close
        receiver = self._receiver
        self._state = CLOSED
        self._receiver = self._inbound = self._early = self._late_pong = None
        if receiver is not None:
            try:
                receiver.closed(code, reason)
            except Exception:
                _LOG.exception("a receiver failed when its connection was closed")

    def pause_writing(self) -> None:
        """Note that the write buffer is above the high water mark."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Note that the write buffer drained, and let the receiver go on."""
        self._is_paused = False
        if self._state > OPEN or self._receiver is None:
            return
        if self._late_pong is not None:
            pong, self._late_pong = self._late_pong, None
            self._write(pong)
        try:
            self._receiver.writable()
        except Exception:
            self._receiver_failed()

    def shutdown(self) -> None:
        """Close because the server stops; uvicorn calls this."""
        if self._state is CONNECTING:
            self.refuse(refusal(503, "unavailable", "the server is restarting"))
        else:
            self.close(CloseCode.RESTARTING, "restarting")

    # Transport: what the receiver calls.

    @property
    def is_paused(self) -> bool:
        """Whether the write buffer is above the high water mark."""
        return self._is_paused

    @property
    def bytes_taken(self) -> int:
        """Of all bytes written, how many the socket took."""
        if self._state is not CLOSED and not self._transport.is_closing():
            self._taken = max(self._taken, self._written - self._transport.get_write_buffer_size())
        return self._taken

    @property
    def buffered_bytes(self) -> int:
        """How many bytes were written and not yet taken by the socket."""
        return 0 if self._state is CLOSED else self._transport.get_write_buffer_size()

    @property
    def last_heard(self) -> float:
        """When a byte last came from the peer, as ``loop.time()``."""
        return self._last_heard

    def write(self, data: bytes) -> None:
        """Send complete, unmasked frames in one write."""
        if self._state is OPEN:
            self._written += len(data)
            self._transport.write(data)

    def ping(self) -> None:
        """Send a protocol ping, unless one is outstanding."""
        if self._state is OPEN and not self._is_ping_outstanding:
            self._is_ping_outstanding = True
            self._write(_PING)

    def pause_reading(self) -> None:
        """Read nothing more until :meth:`resume_reading`."""
        if not self.is_closing:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """
        Begin the closing handshake.

        Raises:
            UsageError: If the code may not be sent in a close frame.
        """
        if self._state is not OPEN:
            return
        inbound = self._inbound or self._begin_inbound()
        if not inbound.is_open:
            return  # the peer's close frame is being answered
        inbound.close(code, reason)
        self._state = CLOSING
        self._write(b"".join(inbound.replies()))
        self._set_deadline()
        self.resume_reading()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._state is not CLOSED:
            self._state = CLOSING
            self._transport.abort()

    # Inbound.

    def _take_request(self, data: bytes) -> None:
        try:
            request = read_request(data)
        except HandshakeRefused as refused:
            self.refuse(refused.response())
            return
        self.request_received(request, addresses(self._transport), b"")

    def _take_early(self) -> None:
        early, self._early = self._early, None
        if early is not None and self._state is not CLOSED:
            self.resume_reading()
            self._take(early)

    def _begin_inbound(self) -> Inbound:
        # Only now: many connections never send a frame.
        self._inbound = Inbound(self._message_limit_bytes)
        return self._inbound

    def _take(self, data: bytes | bytearray) -> None:
        inbound = self._inbound or self._begin_inbound()
        messages = inbound.feed(data)
        if self._state is not OPEN:
            if inbound.is_finished and not inbound.is_failed:
                self._hang_up()
            return
        if inbound.is_open:
            self._pong(inbound)
            self._deliver(messages)
        else:
            # What came before the close frame is answered before it.
            self._deliver(messages)
            self._finish(inbound)

    def _pong(self, inbound: Inbound) -> None:
        if inbound.pongs != self._pongs:
            self._pongs = inbound.pongs
            self._is_ping_outstanding = False
        replies = inbound.replies()
        if not replies:
            return
        # RFC 6455 5.5.3 allows answering only the latest ping. A peer that
        # pings and does not read would fill the buffer otherwise.
        if self._is_paused:
            self._late_pong = replies[-1]
        else:
            self._write(b"".join(replies))

    def _deliver(self, messages: list[str | bytes]) -> None:
        try:
            for message in messages:
                if self._state is not OPEN or self._receiver is None:
                    return
                self._receiver.message_received(message)
        except Exception:
            self._receiver_failed()

    # The closing.

    def _finish(self, inbound: Inbound) -> None:
        if self._state is not OPEN:
            return
        self._state = CLOSING
        self._write(b"".join(inbound.replies()))
        if inbound.is_failed:
            self._half_close()
        else:
            self._hang_up()

    def _receiver_failed(self) -> None:
        _LOG.exception("a receiver failed; its connection is closed")
        self.close(CloseCode.INTERNAL, "internal error")

    def _hang_up(self) -> None:
        self._set_deadline()
        self._transport.close()

    def _half_close(self) -> None:
        # Closing a socket with unread bytes resets it, and the peer might
        # never see the close frame that says what was wrong.
        if not self._transport.can_write_eof():
            self._hang_up()
        elif not self._transport.is_closing():
            self._set_deadline()
            self._transport.write_eof()
            self.resume_reading()

    def _set_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(self.close_timeout, self._transport.abort)

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        self._transport.write(data)

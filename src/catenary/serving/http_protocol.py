"""
uvicorn's HTTP protocol with deadlines and limits, and an upgrade that loses nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from catenary.serving.websocket import WebSocketProtocol
from catenary.serving.websocket_handshake import (
    UpgradeRequest,
    has_token,
    refusal,
)
from catenary.serving.websocket_socket import Addresses

_LINGER_SECONDS = 1.0


class _HeadersTooLarge(Exception):
    """Raised through the parser, which reports it as an error of its own."""


class HTTPProtocol(HttpToolsProtocol):
    """
    One HTTP connection. Give the class to uvicorn as ``http=``.

    Beyond uvicorn's own it closes on a peer that does not finish its headers
    in time (408 if it sent something), or sends too many (431); and it hands
    the connection to :class:`WebSocketProtocol` before anything else can
    reach it, with the bytes that followed the upgrade request.

    Attributes:
        header_timeout: From the connection, and from the first byte of each
            later request, to the end of the headers, in seconds.
        max_header_bytes: The request line and the headers together.
        max_headers: How many there may be.
    """

    header_timeout = 5.0
    max_header_bytes = 64 * 1024
    max_headers = 128

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._unfinished_bytes = 0
        self._has_begun = False
        self._refusal: bytes | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, with a deadline for the first request."""
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(self.header_timeout, self._headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the deadline too."""
        self._stop_header_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; on an upgrade hand the rest on."""
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        if self._header_timer is not None:
            self._unfinished_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or refusal(400, "bad_request", "this is not HTTP"))
            return
        if self._unfinished_bytes > self.max_header_bytes:
            self._refuse(_TOO_LARGE)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._header_bytes = 0
        self._has_begun = True
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_timeout, self._headers_late)

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Call the application, unless this is an upgrade."""
        self._stop_header_timer()
        self._unfinished_bytes = 0
        self._has_begun = False
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.max_header_bytes or len(self.headers) >= self.max_headers:
            self._refusal = _TOO_LARGE
            raise _HeadersTooLarge

    # The upgrade.

    def _get_upgrade(self) -> bytes | None:
        connection = [value for name, value in self.headers if name == b"connection"]
        upgrade = [value for name, value in self.headers if name == b"upgrade"]
        if has_token(connection, b"upgrade") and has_token(upgrade, b"websocket"):
            return b"websocket"
        return None

    def _upgrade(self, rest: bytes) -> None:
        if not self._should_upgrade():
            self._unsupported_upgrade_warning()
        elif self.cycle is not None and not self.cycle.response_complete:
            # Behind a request that is still being answered: that answer is the last.
            self.cycle.keep_alive = False
        elif self.ws_protocol_class is None or not issubclass(
            self.ws_protocol_class, WebSocketProtocol
        ):
            self.handle_websocket_upgrade()
        else:
            self._hand_over(self.ws_protocol_class, rest)

    def _hand_over(self, protocol_class: type[WebSocketProtocol], rest: bytes) -> None:
        self.connections.discard(self)
        request = UpgradeRequest(
            self.scope["method"].encode("latin-1"),
            self.url,
            self.scope["http_version"],
            self.headers,
        )
        # The parser and this protocol refer to each other.
        self.parser = cast("Any", None)
        protocol = protocol_class(self.config, self.server_state, self.app_state, self.loop)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        ends = Addresses("wss" if self.scheme == "https" else "ws", self.server, self.client)
        protocol.request_received(request, ends, rest)

    # Refusing.

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            return
        answer = refusal(408, "timeout", "the request did not arrive in time")
        self._refuse(answer if self._has_begun else b"")

    def _refuse(self, answer: bytes) -> None:
        self._stop_header_timer()
        if self.transport.is_closing():
            return
        self._is_refused = True
        if not answer or (self.cycle is not None and not self.cycle.response_complete):
            self.transport.close()
            return
        self.transport.write(answer)
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        # Closing a socket with unread bytes resets it, and the peer might
        # never see the answer. What it still sends is thrown away.
        self.transport.write_eof()
        self._header_timer = self.loop.call_later(_LINGER_SECONDS, self.transport.abort)


_TOO_LARGE = refusal(431, "headers_too_large", "the headers are over the limit")

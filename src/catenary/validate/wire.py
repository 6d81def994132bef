"""One WebSocket connection as a validator needs it: every byte's time, nothing repaired."""

from __future__ import annotations

import asyncio
import socket
import ssl as ssl_module
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

SUBPROTOCOL = Subprotocol("catenary.v1")
MESSAGE_BYTES = 8 * 1024 * 1024
PORTS = {"ws": 80, "wss": 443}
SMALL_BUFFER_BYTES = 32 * 1024


OnMessages = Callable[["Wire", list[bytes], float], None]


class Wire(asyncio.Protocol):
    """
    One connection, from its handshake to its end.

    ``on_messages`` gets the connection, the bytes of the messages that came
    together, and the time of their receipt as ``time.perf_counter()``. ``opened`` and ``ended`` are done, and
    never fail, when the handshake was answered and when the connection is gone.
    """

    transport: asyncio.Transport

    def __init__(
        self,
        url: str,
        on_messages: OnMessages,
        *,
        token: str | None = None,
        subprotocol: Subprotocol | None = SUBPROTOCOL,
    ) -> None:
        self._protocol = ClientProtocol(
            parse_uri(url),
            subprotocols=None if subprotocol is None else [subprotocol],
            max_size=MESSAGE_BYTES,
        )
        self._token = token
        self.on_messages = on_messages
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.status = 0
        """The HTTP status of the answer; 0 without one."""
        self.body = b""
        """The body of an answer that refuses."""
        self.heard_at = time.perf_counter()
        self.ended_at = 0.0
        self.bytes_received = 0

    @classmethod
    async def open(
        cls,
        url: str,
        on_messages: OnMessages,
        *,
        timeout: float,
        ssl: ssl_module.SSLContext | None = None,
        token: str | None = None,
        subprotocol: Subprotocol | None = SUBPROTOCOL,
    ) -> Wire:
        """
        Connect, and wait for the answer, whatever it is; see ``status``.

        Raises:
            OSError: If nothing listens there.
            TimeoutError: If there is no answer within ``timeout`` seconds.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            transport, wire = await loop.create_connection(
                lambda: cls(url, on_messages, token=token, subprotocol=subprotocol),
                host,
                port,
                ssl=ssl if parts.scheme == "wss" else None,
            )
            try:
                await wire.opened
            except BaseException:
                transport.abort()
                raise
        return wire

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        request = self._protocol.connect()
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        now = self.heard_at = time.perf_counter()
        self.bytes_received += len(data)
        self._protocol.receive_data(data)
        messages: list[bytes] = []
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._answered(event)
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                messages.append(bytes(event.data))
        self._flush()
        if messages:
            self.on_messages(self, messages, now)

    def eof_received(self) -> None:
        """Take note that nothing more comes."""
        self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self.ended_at = time.perf_counter()
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_result(None)

    def _answered(self, response: Response) -> None:
        self.status = response.status_code
        self.body = bytes(response.body or b"")
        if not self.opened.done():
            self.opened.set_result(None)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.close()

    # What the reader asks and does

    def take_little(self) -> None:
        """Let the system hold little that was not read, so that who does not read is slow."""
        sock: socket.socket = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)

    @property
    def is_open(self) -> bool:
        """Whether messages may go both ways."""
        return self._protocol.state is State.OPEN and not self.ended.done()

    @property
    def close_code(self) -> int | None:
        """The code of the server's close frame; None if there was none."""
        received = self._protocol.close_rcvd
        return None if received is None else int(received.code)

    @property
    def fault(self) -> Exception | None:
        """What was wrong with the framing of what came; an end in the middle is not."""
        error = self._protocol.parser_exc
        return None if isinstance(error, EOFError) else error

    def say(self, message: str | bytes) -> None:
        """Send one message: text as ``str``, binary as ``bytes``; nothing once it has ended."""
        if not self.is_open:
            return
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._flush()

    def leave(self) -> None:
        """Close in order."""
        if self.is_open:
            self._protocol.send_close(1000)
            self._flush()

    def abort(self) -> None:
        """Vanish, without a close frame."""
        self.transport.abort()

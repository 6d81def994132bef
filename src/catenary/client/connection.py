"""
One WebSocket connection to a server, and what its failures mean.

The errors of the ``websockets`` package stay behind this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as ssl_module
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from catenary.errors import CatenaryError, CloseCode, UsageError

SUBPROTOCOL = Subprotocol("catenary.v1")
ABNORMAL = 1006


class Ended(CatenaryError):
    """
    The connection has ended.

    ``is_own`` says that this side ended it, because of what came.
    """

    def __init__(self, code: int, reason: str, *, is_own: bool) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.is_own = is_own


class Refused(CatenaryError):
    """The server answered the attempt with an HTTP status; seconds in ``retry_after``."""

    def __init__(self, status: int, message: str, retry_after: float | None) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Unreachable(CatenaryError):
    """There was no connection, nor an answer to the attempt that says why."""


class Dialing(NamedTuple):
    """How connections are made, whatever the place they begin at."""

    url: str
    log: str | None
    thread_ids: tuple[str, ...]
    headers: Mapping[str, str]
    ssl: ssl_module.SSLContext | None
    max_message_bytes: int
    close_timeout: float

    def check(self) -> None:
        """
        Find mistakes before the first attempt.

        Raises:
            UsageError: If the URL is not one of a WebSocket, or ``ssl`` does not go with it.
        """
        try:
            is_secure = parse_uri(self.url).secure
        except InvalidURI as error:
            raise UsageError(f"{error}; one looks like 'wss://host/ws'") from error
        if self.ssl is not None and not is_secure:
            raise UsageError("an SSL context needs a wss:// URL")

    @property
    def tls(self) -> ssl_module.SSLContext | bool | None:
        """What the loop is to do about TLS."""
        is_secure = self.url.lower().startswith("wss:")
        return (self.ssl or True) if is_secure else None

    @property
    def key(self) -> str:
        """The name of what is read, without secrets that the URL may carry."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        names = [f"log={self.log}"] if self.log is not None else []
        names += [f"thread={thread_id}" for thread_id in sorted(self.thread_ids)]
        return " ".join([f"{parts.scheme}://{host}{parts.path}", *names])

    def address(self, after: str | None) -> str:
        """The URL of one attempt."""
        parts = urlsplit(self.url)
        query = [("after", after)] if after is not None else []
        query += [("log", self.log)] if self.log is not None else []
        query += [("thread_id", thread_id) for thread_id in self.thread_ids]
        joined = "&".join(part for part in (parts.query, urlencode(query, safe=":")) if part)
        return urlunsplit(parts._replace(query=joined))


class Socket(ClientConnection):
    """A connection that knows when it last heard something, a whole message or not."""

    heard_at = 0.0
    bytes_received = 0

    def data_received(self, data: bytes) -> None:
        """Take bytes from the network."""
        self.heard_at = self.loop.time()
        self.bytes_received += len(data)
        super().data_received(data)

    @property
    def is_reading(self) -> bool:
        """Whether bytes of the network are taken now, or left to TCP."""
        return bool(self.transport.is_reading())

    async def next_message(self) -> bytes:
        """
        Wait for the next message.

        Raises:
            Ended: If the connection ended instead.
        """
        try:
            return await self.recv(decode=False)
        except ConnectionClosed as error:
            raise ended(error) from error

    async def write(self, text: str) -> bool:
        """Write a message; False if the connection has ended, as the reader will see too."""
        try:
            await self.send(text)
        except ConnectionClosed:
            return False
        return True

    async def show_life(self) -> None:
        """Send a pong that nobody asked for: this side lives, though it does not read."""
        with contextlib.suppress(ConnectionClosed):
            await self.pong()

    def drop(self) -> None:
        """End the connection at once; what was not written is lost."""
        self.transport.abort()

    async def leave(self, code: int, reason: str = "") -> None:
        """End the connection politely, passing over what still comes; then at once."""
        closing = asyncio.ensure_future(self.close(code, reason[:100]))
        try:
            async with asyncio.timeout(self.close_timeout):
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await self.recv(decode=False)
        except TimeoutError:
            pass  # the peer did not answer in time; the drop below settles it
        finally:
            self.drop()
            await closing


async def open_socket(dialing: Dialing, after: str | None, token: str | None) -> Socket:
    """
    Make one attempt to connect.

    Raises:
        Refused: If the server answered with an HTTP status.
        Unreachable: If there was no answer to go by.
    """
    headers = Headers(dialing.headers)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        socket = await connect(
            dialing.address(after),
            subprotocols=[SUBPROTOCOL],
            additional_headers=headers,
            compression=None,
            open_timeout=None,
            ping_interval=None,
            close_timeout=dialing.close_timeout,
            max_size=dialing.max_message_bytes,
            create_connection=Socket,
            ssl=dialing.tls,
        )
    except InvalidStatus as error:
        raise refused(error) from error
    except (OSError, InvalidHandshake, WebSocketException) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error
    assert isinstance(socket, Socket)
    return socket


class _Refusal(msgspec.Struct):
    message: str = ""


def refused(error: InvalidStatus) -> Refused:
    """Read the refusal of an attempt."""
    response = error.response
    try:
        message = msgspec.json.decode(response.body or b"{}", type=_Refusal).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = response.reason_phrase
    return Refused(
        response.status_code,
        message or response.reason_phrase,
        retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC)),
    )


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Read ``Retry-After``, a number of seconds or a date. None if it is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def ended(error: ConnectionClosed) -> Ended:
    """Read the end of a connection: the peer's code, else this side's own, else 1006."""
    if error.rcvd is not None and error.rcvd_then_sent is not False:
        return Ended(error.rcvd.code, error.rcvd.reason, is_own=False)
    if error.sent is not None and error.sent.code == CloseCode.TOO_BIG:
        return Ended(error.sent.code, error.sent.reason, is_own=True)
    return Ended(ABNORMAL, "the connection broke", is_own=False)

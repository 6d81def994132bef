"""
The opening handshake of RFC 6455, as a server answers it.

Pure: from a request that an HTTP parser has read to the bytes of the answer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from catenary.errors import UsageError

Headers = Sequence[tuple[bytes, bytes]]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: "
)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class UpgradeRequest(NamedTuple):
    """A parsed request that asks for a WebSocket. Header names are in lower case."""

    method: bytes
    target: bytes
    http_version: str
    headers: list[tuple[bytes, bytes]]


class HandshakeRefused(Exception):
    """
    The request is no valid WebSocket handshake.

    ``status`` and ``headers`` are those of the answer; ``error`` is a short
    word and the text a sentence, both safe to show to the peer.
    """

    def __init__(self, status: int, error: str, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.headers = headers

    def response(self) -> bytes:
        """Build the whole answer."""
        return refusal(self.status, self.error, str(self), self.headers)


def read_request(data: bytes) -> UpgradeRequest:
    """
    Read a complete request that an HTTP parser has already accepted.

    Raises:
        HandshakeRefused: If it is not one after all.
    """
    head, end, _ = data.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    parts = line.split(b" ")
    if not end or len(parts) != 3:
        raise HandshakeRefused(400, "bad_request", "this is not an HTTP request")
    method, target, version = parts
    headers = []
    for field in fields:
        name, _, value = field.partition(b":")
        headers.append((name.lower(), value.strip()))
    return UpgradeRequest(method, target, version.removeprefix(b"HTTP/").decode("latin-1"), headers)


def has_token(values: Iterable[bytes], token: bytes) -> bool:
    """Whether a header that is a list of tokens holds this one, in whatever case."""
    return any(token == part.strip().lower() for value in values for part in value.split(b","))


def accept_key(request: UpgradeRequest) -> bytes:
    """
    Check a handshake; return what ``Sec-WebSocket-Accept`` must say.

    Raises:
        HandshakeRefused: With 405 for a method other than GET, 426 for another
            version of the protocol, 400 for whatever else RFC 6455 4.2.1 forbids.
    """
    if request.method != b"GET":
        raise HandshakeRefused(
            405, "bad_method", "a WebSocket is opened with GET", [(b"allow", b"GET")]
        )
    if request.http_version != "1.1":
        raise HandshakeRefused(400, "bad_request", "a WebSocket needs HTTP/1.1")
    upgrade, connection, version, keys = _relevant_headers(request.headers)
    if not has_token(upgrade, b"websocket"):
        raise HandshakeRefused(400, "bad_request", "Upgrade must name websocket")
    if not has_token(connection, b"upgrade"):
        raise HandshakeRefused(400, "bad_request", "Connection must name Upgrade")
    if version != [b"13"]:
        raise HandshakeRefused(
            426,
            "bad_version",
            "only version 13 of the WebSocket protocol is spoken here",
            [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")],
        )
    if len(keys) != 1 or not _is_key(keys[0]):
        raise HandshakeRefused(
            400, "bad_request", "Sec-WebSocket-Key must be 16 bytes in base64, once"
        )
    return base64.b64encode(hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest())


def _relevant_headers(
    headers: Headers,
) -> tuple[list[bytes], list[bytes], list[bytes], list[bytes]]:
    upgrade: list[bytes] = []
    connection: list[bytes] = []
    version: list[bytes] = []
    keys: list[bytes] = []
    for name, value in headers:
        if name == b"upgrade":
            upgrade.append(value)
        elif name == b"connection":
            connection.append(value)
        elif name == b"sec-websocket-version":
            version.append(value)
        elif name == b"sec-websocket-key":
            keys.append(value)
    return upgrade, connection, version, keys


def _is_key(key: bytes) -> bool:
    try:
        return len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except binascii.Error:
        return False


def subprotocols(headers: Headers) -> list[str]:
    """Return what the peer offers, in its order."""
    return [
        token.strip().decode("latin-1")
        for name, value in headers
        if name == b"sec-websocket-protocol"
        for token in value.split(b",")
    ]


def switching_protocols(accept: bytes, subprotocol: str | None, headers: Headers) -> bytes:
    """
    Build the answer that opens the WebSocket.

    Raises:
        UsageError: If the subprotocol or a header is not allowed in HTTP.
    """
    lines = [_SWITCHING, accept, b"\r\n"]
    if subprotocol is not None:
        name = subprotocol.encode("latin-1", "replace")
        if not _NAME.fullmatch(name):
            raise UsageError(f"not a subprotocol: {subprotocol!r}")
        lines += [b"sec-websocket-protocol: ", name, b"\r\n"]
    lines += _header_lines(headers)
    lines.append(b"\r\n")
    return b"".join(lines)


def response_head(status: int, headers: Headers) -> bytes:
    """
    Build the status line and headers of an answer that ends the connection.

    Raises:
        UsageError: If the status or a header is not allowed in HTTP.
    """
    if not 200 <= status < 600:
        raise UsageError(f"not a status that refuses a handshake: {status}")
    line = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode("latin-1")
    return b"".join([line, *_header_lines(headers), b"connection: close\r\n\r\n"])


def refusal(status: int, error: str, message: str, headers: Headers = ()) -> bytes:
    """Build a whole answer with a JSON body, after which the connection is closed."""
    body = json.dumps({"error": error, "message": message}).encode()
    known = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    return response_head(status, [*headers, *known]) + body


def _header_lines(headers: Headers) -> list[bytes]:
    lines = []
    for name, value in headers:
        if not _NAME.fullmatch(name) or _FORBIDDEN_IN_VALUE.search(value):
            raise UsageError(f"not a header that HTTP allows: {name!r}")
        lines += [name, b": ", value, b"\r\n"]
    return lines

"""
The server's messages as the client reads them.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import Any

import msgspec

from catenary.errors import ProtocolError, UsageError
from catenary.events import WebSocketEvent, decode_event
from catenary.position import Position


class Connected(msgspec.Struct, frozen=True):
    """The first message of a connection: who one is, and where it starts."""

    after: str
    position: str = ""
    connection_id: str = ""
    user_id: str = ""
    replay: int = 0
    heartbeat_interval: float = 15.0
    max_message_bytes: int = 65_536


class Live(msgspec.Struct, frozen=True):
    """Everything up to the head was sent; from here on events come as they happen."""

    position: str


class Heartbeat(msgspec.Struct, frozen=True):
    """A sign of life, with this connection's own place."""

    position: str


class GapNotice(msgspec.Struct, frozen=True):
    """Events strictly between two positions are lost."""

    after: str
    resumes_at: str
    reason: str


class Closing(msgspec.Struct, frozen=True):
    """A planned close follows; ``reconnect_after`` is in seconds."""

    reason: str = ""
    reconnect_after: float | None = None


class Ack(msgspec.Struct, frozen=True):
    """A command was accepted."""

    id: str
    reply: Any = None
    already_ended: bool = False
    already_answered: bool = False
    answer: Any = None


class ErrorAnswer(msgspec.Struct, frozen=True):
    """A command, or with no ``id`` some other message, was refused."""

    code: str
    message: str = ""
    id: str | None = None


class Pong(msgspec.Struct, frozen=True):
    """The answer to a ping."""

    id: str | None = None


class PositionOk(msgspec.Struct, frozen=True):
    """The server knows that everything through ``position`` is handled."""

    position: str


class AuthOk(msgspec.Struct, frozen=True):
    """The new token was accepted."""

    expires_at: float | None = None


class Unknown(msgspec.Struct, frozen=True):
    """A control message of a later protocol; to be ignored."""

    type: str


Control = (
    Connected
    | Live
    | Heartbeat
    | GapNotice
    | Closing
    | Ack
    | ErrorAnswer
    | Pong
    | PositionOk
    | AuthOk
    | Unknown
)

_TYPES: dict[str, type[Control]] = {
    "connected": Connected,
    "live": Live,
    "heartbeat": Heartbeat,
    "gap": GapNotice,
    "closing": Closing,
    "ack": Ack,
    "error": ErrorAnswer,
    "pong": Pong,
    "position_ok": PositionOk,
    "auth_ok": AuthOk,
}


class _Head(msgspec.Struct):
    type: str
    seq: int | None = None


_head = msgspec.json.Decoder(_Head)
_control = {name: msgspec.json.Decoder(struct) for name, struct in _TYPES.items()}


def decode_message(raw: bytes | str) -> WebSocketEvent | Control:
    """
    Read one message of the server: an event if it has a ``seq``, else control.

    Raises:
        ProtocolError: If it is not JSON, or not what its type promises.
    """
    try:
        head = _head.decode(raw)
        if head.seq is not None:
            return decode_event(raw)
        decoder = _control.get(head.type)
        return Unknown(head.type) if decoder is None else decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise ProtocolError("bad_message", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError("bad_json", str(error)) from error


def read_position(text: str) -> Position:
    """
    Read a position that the server sent.

    Raises:
        ProtocolError: If it is not one.
    """
    try:
        return Position.parse(text)
    except UsageError as error:
        raise ProtocolError("bad_message", str(error)) from error

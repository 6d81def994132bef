"""What the nodes of a log ask each other about connections."""

from __future__ import annotations

import msgspec

from catenary.context import ConnectionStatus
from catenary.position import Position


class ConnectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told of one connection. Times in seconds."""

    connection_id: str
    node: str
    """The process that has it: its name as a holder of runs."""
    user_id: str
    session_id: str | None
    log_id: str
    status: ConnectionStatus
    position: Position
    lag: int
    """How many events the log has beyond this cursor."""
    silent_for: float
    heard_at: float
    """When it said something last. Seconds since 1970, as ``opened_at``."""
    opened_at: float


class Look(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    """Which connections have you, of a user or of all?"""

    user_id: str | None


class Looked(msgspec.Struct):
    """The connections, and the (log id, message id) of messages that are being handled."""

    connections: list[ConnectionInfo] = []
    handlers: list[tuple[str, str]] = []


class Disconnect(msgspec.Struct, frozen=True, kw_only=True, tag="disconnect"):
    """Close a user's connections, or those of one session, or some. Answered with how many."""

    user_id: str
    session_id: str | None = None
    connection_ids: list[str] | None = None
    code: int
    reason: str


_decoder: msgspec.json.Decoder[Look | Disconnect] = msgspec.json.Decoder(Look | Disconnect)


def decode_question(question: bytes) -> Look | Disconnect:
    """Return what is asked."""
    return _decoder.decode(question)

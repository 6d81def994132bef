"""
Native messages as server-sent events, for networks that block WebSocket.

The ``id`` of a message is the place that a client continues from once it has
it, so a browser's ``EventSource`` resumes by itself with ``Last-Event-ID``.
Pure: no I/O, no clock.
"""

from __future__ import annotations

import msgspec

from catenary.position import Position

RETRY = b"retry: 2000\n\n"
"""How long an ``EventSource`` waits before it comes back, in milliseconds."""


class _Head(msgspec.Struct):
    """What of a message says where its reader is."""

    type: str
    seq: int | None = None
    id: str | int | None = None
    position: str | None = None
    after: str | None = None
    resumes_at: str | None = None


_decode = msgspec.json.Decoder(_Head).decode


def sse_message(payload: bytes) -> bytes:
    """Return the server-sent event of one message of the native wire, given as JSON."""
    place = _place_of(_decode(payload))
    # JSON holds a raw line break only between its tokens, where a space says the same.
    data = payload.replace(b"\r", b" ").replace(b"\n", b" ")
    if place is None:
        return b"data: %b\n\n" % data
    return b"id: %b\ndata: %b\n\n" % (place.encode(), data)


def closing_message(code: int, reason: str, *, is_final: bool) -> bytes:
    """
    Return the message before the end of a stream, which carries no close code itself.

    A final code asks an ``EventSource``, which always comes back, for patience;
    a client that reads the code stays away.
    """
    message = {"type": "closing", "code": int(code), "reason": reason}
    retry = b"retry: 60000\n" if is_final else b""
    return retry + b"data: %b\n\n" % msgspec.json.encode(message)


def _place_of(head: _Head) -> str | None:
    if head.seq is not None:
        return str(head.id)
    if head.type == "connected":
        return head.after
    if head.type == "gap" and head.resumes_at is not None:
        epoch, seq = Position.parse(head.resumes_at)
        return str(Position(epoch, seq - 1))
    return head.position if head.type in {"live", "heartbeat"} else None

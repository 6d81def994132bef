"""
The wire ``catenary.v1``: records as WebSocket text frames.

Server frames are unmasked (RFC 6455, 5.1), so a frame is built once and
shared by every connection that reads it. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from catenary.events import WebSocketEvent, decode_event
from catenary.record import Record

SUBPROTOCOL = "catenary.v1"

_encode = msgspec.json.Encoder().encode


def text_frame(payload: bytes) -> bytes:
    """Return an unmasked, final text frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


def payload_of(frame: bytes) -> bytes:
    """Return the payload of a frame that :func:`text_frame` built."""
    length = frame[1]
    return frame[2:] if length < 126 else frame[4:] if length == 126 else frame[10:]


def split_frames(data: bytes) -> Iterator[bytes]:
    """Yield the frames of a joined write one by one."""
    start = 0
    while start < len(data):
        length = data[start + 1]
        if length < 126:
            end = start + 2 + length
        elif length == 126:
            end = start + 4 + int.from_bytes(data[start + 2 : start + 4])
        else:
            end = start + 10 + int.from_bytes(data[start + 2 : start + 10])
        yield data[start:end]
        start = end


def event_payload(record: Record) -> bytes:
    """Return the JSON of an event."""
    numbers = (
        f'{{"type":"{record.type}","id":"{record.epoch}:{record.seq}","seq":{record.seq},'
        if not record.from_seq
        else f'{{"type":"{record.type}","id":"{record.epoch}:{record.seq}",'
        f'"seq":{record.seq},"from_seq":{record.from_seq},'
    )
    return numbers.encode() + record.body


def event_frame(record: Record) -> bytes:
    """Return the frame of an event."""
    return text_frame(event_payload(record))


def event_of(record: Record) -> WebSocketEvent:
    """Return a record as the event that a reader gets."""
    return decode_event(event_payload(record))


def control_frame(message: Mapping[str, Any]) -> bytes:
    """Return the frame of a control message; absent (None) fields are left out."""
    return text_frame(_encode({key: value for key, value in message.items() if value is not None}))

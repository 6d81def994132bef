"""
The frames that a server sends: unmasked, whole, one per message.

Pure: from a payload to the bytes of a frame (RFC 6455 5.2).
"""

from __future__ import annotations

TEXT = 0x81
BINARY = 0x82


def frame(first_byte: int, payload: bytes) -> bytes:
    """Build one frame; ``first_byte`` is :data:`TEXT` or :data:`BINARY`."""
    size = len(payload)
    if size < 126:
        return bytes((first_byte, size)) + payload
    if size < 65536:
        return bytes((first_byte, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first_byte, 127)) + size.to_bytes(8, "big") + payload

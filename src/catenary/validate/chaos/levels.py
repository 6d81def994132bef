"""Networks of named badness, for campaigns that are compared with each other."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from catenary.validate.chaos.faults import Faults

HANDSHAKE_BYTES = 4096
"""About what a server says in the handshakes of TLS and of a WebSocket together."""

LEVELS: Mapping[str, Faults] = MappingProxyType(
    {
        "medium": Faults(cut=0.25, delay=0.05, jitter=0.15),
        "high": Faults(
            cut=0.45, delay=0.1, jitter=0.4, corrupt=0.15, corrupt_after_bytes=HANDSHAKE_BYTES
        ),
        "latency": Faults(delay=0.1, jitter=0.4),
        "corruption": Faults(corrupt=0.3, corrupt_after_bytes=HANDSHAKE_BYTES),
        "everything": Faults(
            cut=0.45,
            delay=0.05,
            jitter=0.2,
            corrupt=0.15,
            corrupt_after_bytes=HANDSHAKE_BYTES,
            bytes_per_second=100_000,
            split_bytes=512,
            stall=0.02,
            stall_seconds=0.5,
            loss=0.05,
            refuse=0.1,
        ),
    }
)
"""
The levels by name.

- ``medium``: 25 % of the connections are cut, and all is delayed by 50 to 200 ms each way.
- ``high``: 45 % are cut, delays of 100 to 500 ms, and 15 % of the chunks are altered.
- ``latency``: delays of 100 to 500 ms, drawn anew for each chunk, and nothing else.
- ``corruption``: 30 % of the chunks are altered, and nothing else.
- ``everything``: as ``high``, with delays of 50 to 250 ms, on a slow link that also splits, stalls,
  loses and refuses.

What alters spares the first 4 KiB of a direction: a connection that never comes about shows nothing.
Altered bytes go unnoticed on ``ws://``; play levels that alter over ``wss://``.
"""

"""
How the socket of a WebSocket is set, and whom it connects.
"""

from __future__ import annotations

import asyncio
import socket
from typing import NamedTuple

from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from catenary.transport import HIGH_WATER_BYTES, LOW_WATER_BYTES

_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class Addresses(NamedTuple):
    """The two ends of a connection, as ASGI scopes name them."""

    scheme: str
    server: tuple[str, int | None] | None
    client: tuple[str, int] | None


def addresses(transport: asyncio.Transport) -> Addresses:
    """Ask the transport for its two ends."""
    scheme = "wss" if is_ssl(transport) else "ws"
    return Addresses(scheme, get_local_addr(transport), get_remote_addr(transport))


def tune(transport: asyncio.Transport) -> None:
    """
    Send at once, and keep little that is not sent.

    The less the kernel buffers, the sooner a slow peer is noticed, and the
    fewer events are on their way when it leaves.
    """
    transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=LOW_WATER_BYTES)
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _NOTSENT_LOWAT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, HIGH_WATER_BYTES)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HIGH_WATER_BYTES)

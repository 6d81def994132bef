"""Peers in processes of their own, which a validation can freeze."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from catenary.errors import ValidationFailed
from catenary.validate.bridges import ServedBridge

_READ = """
import asyncio, sys
from catenary.client import Client

async def read(url, token):
    async with Client(url, token=token) as client:
        async for _ in client:
            pass

asyncio.run(read(*sys.argv[1:]))
"""


class Peer:
    """A process that reads a user's events; it can be frozen."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def freeze(self) -> None:
        """Stop it in the middle: its sockets stay open, and nothing is read (SIGSTOP)."""
        if self._process.returncode is not None:
            raise ValidationFailed("the reader in another process has ended by itself")
        self._process.send_signal(signal.SIGSTOP)


@asynccontextmanager
async def peer_process(bridge: ServedBridge, user_id: str) -> AsyncIterator[Peer]:
    """Start a reader in a process of its own; it is killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _READ, bridge.websocket_url, bridge.token(user_id)
    )
    try:
        yield Peer(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()

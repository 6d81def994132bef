"""A server that sends everything back and remembers how its connections began and ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

PATIENCE = 5.0


class Echo:
    """What an echo server has seen."""

    def __init__(self) -> None:
        self.port = 0
        self.addresses: list[str] = []
        """From where its clients came."""
        self.received = bytearray()
        self.ends: list[str] = []
        """How connections ended, ``end`` or ``reset``."""
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.addresses.append(writer.get_extra_info("peername")[0])
        try:
            while data := await reader.read(65536):
                self.received += data
                writer.write(data)
                await writer.drain()
            self.ends.append("end")
        except ConnectionError:
            self.ends.append("reset")
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def echoing() -> AsyncIterator[Echo]:
    """Serve until the block ends, and see that no connection is left then."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    try:
        yield echo
        await until(lambda: not echo.open)
    finally:
        server.close()
        await server.wait_closed()


class Peer:
    """A client of the proxy; every wait is bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)

    async def asked(self, data: bytes) -> bytes:
        """Send, and bring what comes back."""
        self.send(data)
        return await self.receive(len(data))

    async def end(self) -> tuple[bytes, str]:
        """Read until the connection ends; say how: ``end`` or ``reset``."""
        data = bytearray()
        async with asyncio.timeout(PATIENCE):
            try:
                while piece := await self.reader.read(65536):
                    data += piece
            except ConnectionError:
                return bytes(data), "reset"
        return bytes(data), "end"

    async def is_silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes for so long, not even an end."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    async def falls_silent(self) -> bool:
        """Whether, after what may still come, nothing does, not even an end."""
        async with asyncio.timeout(PATIENCE):
            while not await self.is_silent():
                if self.reader.at_eof():
                    return False
        return True

    def close(self) -> None:
        self.writer.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)

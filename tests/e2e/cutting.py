"""A network that breaks: a TCP proxy that cuts its connections at random bytes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from types import TracebackType
from typing import Self

PIECE_BYTES = 1024


class CuttingProxy:
    """
    Forwards to a port of this machine, and cuts each connection sooner or later.

    Where is drawn from ``seed``: in the handshake, in what the client sends, or
    in the middle of what it is sent; by a reset or an end. After
    ``stop_cutting`` connections hold.
    """

    def __init__(self, target: int, *, seed: str, reach_bytes: int = 20_000) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._reach = reach_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cutting = True
        self.port = 0
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def stop_cutting(self) -> None:
        """Let connections hold, those that are open too."""
        self._is_cutting = False

    def _draw(self) -> tuple[int, int]:
        """Return after how many bytes up and down this connection is cut."""
        where = self._random.random()
        if where < 0.15:
            return self._random.randrange(400), self._reach
        if where < 0.3:
            return self._reach, self._random.randrange(600)
        return self._reach, self._random.randrange(600, self._reach)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        up, down = self._draw()
        is_reset = self._random.random() < 0.5
        writers = [writer]
        try:
            with contextlib.suppress(ConnectionError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
                writers.append(far_writer)
                ways = [
                    asyncio.create_task(self._pump(reader, far_writer, up)),
                    asyncio.create_task(self._pump(far_reader, writer, down)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
        finally:
            for each in writers:
                if is_reset:
                    _make_reset(each)
                each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int
    ) -> None:
        """Forward ``budget`` bytes, then return; or all, when connections hold."""
        while data := await reader.read(PIECE_BYTES):
            if self._is_cutting and len(data) > budget:
                self.cuts += 1
                writer.write(data[:budget])
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                return
            budget -= len(data)
            writer.write(data)
            await writer.drain()


def _make_reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

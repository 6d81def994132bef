"""A slow network: a TCP proxy that holds back what it forwards, or all of it."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

PIECE_BYTES = 64 * 1024


class SlowProxy:
    """
    Forwards to a server, each piece after ``delay`` seconds, in order.

    While ``is_up`` or ``is_down`` is False nothing goes that way: up is what
    clients send, down is what they are sent.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.target_port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        self.is_up = True
        self.is_down = True
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writers = [writer]
        try:
            with contextlib.suppress(ConnectionError):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                writers.append(far_writer)
                ways = [
                    asyncio.create_task(self._pump(reader, far_writer, is_up=True)),
                    asyncio.create_task(self._pump(far_reader, writer, is_up=False)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
        finally:
            for each in writers:
                each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool
    ) -> None:
        while data := await reader.read(PIECE_BYTES):
            await asyncio.sleep(self.delay)
            while not (self.is_up if is_up else self.is_down):
                await asyncio.sleep(0.05)
            writer.write(data)
            await writer.drain()

"""A transport over plain ASGI messages, for servers without the fast path."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Send

from catenary.errors import ConnectionClosed
from catenary.transport import Receiver
from catenary.wires.native import payload_of, split_frames

HIGH_WATER_BYTES = 64 * 1024


class PlainTransport:
    """
    One WebSocket of an ASGI server, as a :class:`catenary.transport.Transport`.

    The server answers pings itself, so a peer counts as heard while nothing
    is stuck on its way to it.
    """

    def __init__(self, receiver: Receiver, receive: Receive, send: Send) -> None:
        self._receiver = receiver
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._taken = 0
        self._heard = self._loop.time()
        self._has_work = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._close: tuple[int, str] | None = None
        self._reader: asyncio.Task[tuple[int, str]] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether more waits than the server has taken."""
        return self._unsent_bytes > HIGH_WATER_BYTES or self._close is not None

    @property
    def bytes_taken(self) -> int:
        """How many bytes the server took."""
        return self._taken

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait for the server to take them."""
        return self._unsent_bytes

    @property
    def last_heard(self) -> float:
        """When the peer was last heard; now, while nothing is stuck."""
        return self._heard if self._unsent else self._loop.time()

    def write(self, data: bytes) -> None:
        """Send these frames, in order, as the server takes them."""
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._has_work.set()

    def ping(self) -> None:
        """The server pings by itself."""

    def pause_reading(self) -> None:
        """Read nothing more for now."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Read again."""
        self._may_read.set()

    def close(self, code: int, reason: str) -> None:
        """Close once what was written is sent."""
        if self._close is None:
            self._close = (code, reason)
            self._has_work.set()

    def abort(self) -> None:
        """Close without waiting for what was written."""
        self._unsent.clear()
        self._unsent_bytes = 0
        self.close(1011, "aborted")
        if self._reader is not None:
            self._reader.cancel()

    async def accept(self, subprotocol: str | None) -> None:
        """
        Accept the connection.

        Raises:
            ConnectionClosed: If the peer has gone meanwhile.
        """
        message = await self._receive()
        if message["type"] != "websocket.connect":
            raise ConnectionClosed(1006, "the peer has gone")
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})

    async def serve(self) -> None:
        """Serve the connection until it ends; the receiver is told."""
        reader = self._reader = asyncio.ensure_future(self._read())
        writer = asyncio.ensure_future(self._write())
        code, reason = 1006, ""
        try:
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if reader in done and not reader.cancelled():
                code, reason = reader.result()
            elif writer in done and self._close is not None:
                code, reason = self._close
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            self._receiver.closed(code, reason)

    async def _read(self) -> tuple[int, str]:
        while True:
            await self._may_read.wait()
            message = await self._receive()
            self._heard = self._loop.time()
            if message["type"] == "websocket.disconnect":
                return message.get("code") or 1005, message.get("reason") or ""
            text = message.get("text")
            self._receiver.message_received(text if text is not None else message["bytes"])

    async def _write(self) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            while self._unsent:
                await self._send_frames(self._unsent[0])
            if self._close is not None:
                code, reason = self._close
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
                return
            self._receiver.writable()

    async def _send_frames(self, data: bytes) -> None:
        for frame in split_frames(data):
            await self._send({"type": "websocket.send", "text": payload_of(frame).decode()})
            self._taken += len(frame)
            self._heard = self._loop.time()
        if self._unsent:
            del self._unsent[0]
            self._unsent_bytes -= len(data)

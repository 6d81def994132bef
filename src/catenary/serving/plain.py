"""A transport over plain ASGI messages, for servers without the fast path."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Send

from catenary.errors import CloseCode, ConnectionClosed
from catenary.serving.awaited import AwaitedTransport, End, PeerGone
from catenary.transport import Receiver
from catenary.wires.native import payload_of, split_frames

MESSAGE_LIMIT_BYTES = 1024 * 1024
"""A message over it closes the connection with 1009."""


class PlainTransport(AwaitedTransport):
    """One WebSocket of an ASGI server, as a :class:`catenary.transport.Transport`."""

    def __init__(self, receiver: Receiver, receive: Receive, send: Send) -> None:
        super().__init__(receiver, receive, send)
        self._may_read = asyncio.Event()
        self._may_read.set()

    def pause_reading(self) -> None:
        """Read nothing more for now."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Read again."""
        self._may_read.set()

    async def accept(self, subprotocol: str | None) -> None:
        """
        Accept the connection.

        Raises:
            ConnectionClosed: If the peer has gone meanwhile.
        """
        message = await self._receive()
        if message["type"] != "websocket.connect":
            raise ConnectionClosed(1006, "the peer has gone")
        try:
            await self._put({"type": "websocket.accept", "subprotocol": subprotocol})
        except PeerGone as error:
            raise ConnectionClosed(1006, "the peer has gone") from error

    async def _read(self) -> End:
        while True:
            await self._may_read.wait()
            message = await self._receive()
            self._heard = self._loop.time()
            if message["type"] == "websocket.disconnect":
                return message.get("code") or 1005, message.get("reason") or ""
            text = message.get("text")
            content: str | bytes = text if text is not None else message["bytes"]
            if self._closing is not None:
                continue
            if _is_too_big(content):
                self.close(CloseCode.TOO_BIG, "a message has at most 1 MiB")
                continue
            self._receiver.message_received(content)

    async def _send_data(self, data: bytes) -> None:
        for frame in split_frames(data):
            await self._put({"type": "websocket.send", "text": payload_of(frame).decode()})
            self._took(len(frame))

    async def _send_end(self, code: int, reason: str) -> None:
        short = reason.encode()[:120].decode(errors="ignore")
        await self._put({"type": "websocket.close", "code": int(code), "reason": short})


def _is_too_big(content: str | bytes) -> bool:
    if len(content) > MESSAGE_LIMIT_BYTES:
        return True
    if isinstance(content, bytes) or len(content) * 4 <= MESSAGE_LIMIT_BYTES:
        return False
    return len(content.encode()) > MESSAGE_LIMIT_BYTES

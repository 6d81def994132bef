"""Transports over awaited sends: what those on plain ASGI messages share."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
from typing import Any

from starlette.types import Message, Receive, Send

from catenary.transport import HIGH_WATER_BYTES, Receiver

logger = logging.getLogger("catenary.serving")

CLOSE_TIMEOUT = 5.0
"""How long what is unsent may keep a closing from being finished, in seconds."""

End = tuple[int, str]


class AwaitedTransport(abc.ABC):
    """
    A :class:`catenary.transport.Transport` whose bytes an ASGI server takes one send at a time.

    What waits for the server is bounded as on any transport: the connection
    stops at the high water mark. The server sees to pings, so a peer counts as
    heard while nothing is stuck on its way to it. :meth:`serve` is the task
    of the connection; it ends with it.
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
        self._closing: End | None = None
        self._abort = self._loop.create_future()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_paused(self) -> bool:
        """Whether more waits than the server has taken."""
        return self._unsent_bytes > HIGH_WATER_BYTES or self._closing is not None

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
        if self._closing is None:
            self._unsent.append(data)
            self._unsent_bytes += len(data)
            self._has_work.set()

    def ping(self) -> None:  # noqa: B027 - nothing is to be done on any of them
        """The server pings by itself."""

    @abc.abstractmethod
    def pause_reading(self) -> None:
        """Read nothing more for now."""

    @abc.abstractmethod
    def resume_reading(self) -> None:
        """Read again."""

    def close(self, code: int, reason: str) -> None:
        """Close once what was written is sent, or after 5 s without it."""
        if self._closing is None:
            self._closing = (code, reason)
            self._deadline = self._loop.call_later(CLOSE_TIMEOUT, self.abort)
            self._has_work.set()

    def abort(self) -> None:
        """End the connection without waiting for what was written."""
        self._closing = self._closing or (1006, "")
        self._unsent.clear()
        self._unsent_bytes = 0
        if not self._abort.done():
            self._abort.set_result(None)

    # The task of the connection

    async def serve(self) -> None:
        """Serve the connection until it ends; the receiver is told."""
        reader = asyncio.ensure_future(self._read())
        writer = asyncio.ensure_future(self._write())
        end: End | None = None
        try:
            await asyncio.wait({reader, writer, self._abort}, return_when=asyncio.FIRST_COMPLETED)
            end = self._closing or _end_of(reader)
            _raise_defect(reader, writer)
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            self._closing = self._closing or (1006, "")
            for task in (reader, writer):
                task.add_done_callback(_look_at)
                task.cancel()
            self._receiver.closed(*(end or (1006, "")))
            # A server may cancel again and again, so what must be done is done by now.
            await asyncio.wait({reader, writer})

    @abc.abstractmethod
    async def _read(self) -> End:
        """Give the receiver what the peer says; return how the peer ended it."""

    async def _write(self) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            while self._unsent:
                await self._send_data(self._unsent[0])
                if self._unsent:
                    self._unsent_bytes -= len(self._unsent.pop(0))
            if self._closing is not None:
                await self._send_end(*self._closing)
                return
            self._receiver.writable()

    async def _put(self, message: Message) -> None:
        """
        Send one ASGI message.

        Raises:
            PeerGone: If it cannot be sent any more.
        """
        try:
            await self._send(message)
        except Exception as error:
            # Each server says with an error of its own class that the peer has gone.
            logger.debug("a server refused %s: %r", message["type"], error)
            raise PeerGone from error

    def _took(self, size: int) -> None:
        self._taken += size
        self._heard = self._loop.time()

    @abc.abstractmethod
    async def _send_data(self, data: bytes) -> None:
        """Send joined frames of one write, saying :meth:`_took` as the server takes them."""

    @abc.abstractmethod
    async def _send_end(self, code: int, reason: str) -> None:
        """Send what closes the connection."""


class PeerGone(Exception):
    """The server sends no more: the peer has gone."""


def _end_of(reader: asyncio.Task[End]) -> End | None:
    if reader.done() and not reader.cancelled() and reader.exception() is None:
        return reader.result()
    return None


def _look_at(task: asyncio.Task[Any]) -> None:
    """What a task ended with is known already, or came of the end."""
    if not task.cancelled():
        task.exception()


def _raise_defect(*tasks: asyncio.Task[Any]) -> None:
    """Raise what the receiver raised; the server logs it and closes with 1011."""
    for task in tasks:
        if task.done():
            with contextlib.suppress(PeerGone):
                task.result()

"""One connection in virtual time: it is slow, stalls, breaks, and loses what was under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from catenary.transport import HIGH_WATER_BYTES, LOW_WATER_BYTES
from catenary.validate.simulation.loop import SimulatedLoop

WINDOW_BYTES = 64 * 1024
"""What the kernels of both ends and the wire between them hold in one direction."""

_FIN = b""
"""Stands in a direction for the end of the sending."""

ProtocolFactory = Callable[[], asyncio.BaseProtocol]
P = TypeVar("P", bound=asyncio.BaseProtocol)


class Way:
    """
    One direction of a connection: what was written, what flies, what was not read.

    Bytes come in the order in which they were written. At most ``window_bytes``
    have left the sender and were not read by the receiver.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.sender: End
        self.receiver: End
        self.unsent = bytearray()
        self._is_finished = False
        self._flying: deque[tuple[float, bytes]] = deque()
        self._unread: deque[bytes] = deque()
        self._outstanding_bytes = 0

    def write(self, data: bytes) -> None:
        """Take bytes from the sender."""
        self.unsent += data
        self.move()

    def finish(self) -> None:
        """Send the end after all that was written."""
        self._is_finished = True
        self.move()

    def move(self) -> None:
        """Let fly what there is room for."""
        link = self._link
        if link.is_stalled:
            return
        room = link.window_bytes - self._outstanding_bytes
        while self.unsent and room > 0:
            piece = bytes(self.unsent[: min(room, link.segment_bytes)])
            del self.unsent[: len(piece)]
            room -= len(piece)
            self._fly(piece)
        if self._is_finished and not self.unsent:
            self._is_finished = False
            self._fly(_FIN)
            self.sender.loop.call_soon(self.sender.flushed)

    def _fly(self, piece: bytes) -> None:
        link = self._link
        link.note_moved()
        self._outstanding_bytes += len(piece)
        if link.is_lost:
            return
        loop = self.receiver.loop
        arrives_at = loop.time() + link.latency
        self._flying.append((arrives_at, piece))
        loop.call_at(arrives_at, self._arrive)

    def _arrive(self) -> None:
        now = self.receiver.loop.time()
        while self._flying and self._flying[0][0] <= now:
            self._unread.append(self._flying.popleft()[1])
        self.read()

    def read(self) -> None:
        """Give the receiver what has arrived, if it reads."""
        while self._unread and self.receiver.is_reading():
            piece = self._unread.popleft()
            self._outstanding_bytes -= len(piece)
            self.receiver.take(piece)
        self.move()
        self.sender.drained()

    def lose(self, kept_bytes: int = 0) -> None:
        """Lose what flies, but for its first bytes; it stays outstanding, for nobody confirms it."""
        flying, self._flying = self._flying, deque()
        for arrives_at, piece in flying:
            if kept_bytes <= 0:
                return
            self._flying.append((arrives_at, piece[:kept_bytes]))
            kept_bytes -= len(piece)

    def drop_unsent(self) -> None:
        """Send nothing more; what flies arrives."""
        self.unsent.clear()
        self._is_finished = False


class End(asyncio.Transport):
    """
    One end of a connection, as its protocol sees it: an asyncio transport.

    It keeps the promises of asyncio's own: it calls its protocol on its own
    loop, and never from within a call of the protocol's, but for
    ``pause_writing``.
    """

    def __init__(self, loop: SimulatedLoop, link: Link) -> None:
        super().__init__()
        self.loop = loop
        self.link = link
        self._protocol: asyncio.BaseProtocol = asyncio.Protocol()
        self._outgoing: Way
        self._incoming: Way
        self._high = HIGH_WATER_BYTES
        self._low = LOW_WATER_BYTES
        self._is_paused = False
        self._is_reading = True
        self._is_closing = False
        self._is_over = False

    def join(self, outgoing: Way, incoming: Way) -> None:
        """Take the two directions; called once, by the link."""
        self._outgoing, self._incoming = outgoing, incoming
        outgoing.sender, incoming.receiver = self, self

    # What protocols call

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send bytes; they are kept while the other end takes none."""
        if self._is_closing or not data:
            return
        self._outgoing.write(bytes(data))
        if len(self._outgoing.unsent) > self._high and not self._is_paused:
            self._is_paused = True
            self._as_protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send several pieces in one write."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Send the end, and go on reading."""
        self._outgoing.finish()

    def can_write_eof(self) -> bool:
        """A half of a connection can be closed."""
        return True

    def close(self) -> None:
        """Send what was written, then the end; nothing is read any more."""
        if not self._is_closing:
            self._is_closing = True
            self._outgoing.finish()

    def abort(self) -> None:
        """Drop everything at once; the other end is told, if the network lets it know."""
        if not self._is_over:
            self.link.reset_from(self)

    def is_closing(self) -> bool:
        """Whether the closing began."""
        return self._is_closing

    def pause_reading(self) -> None:
        """Read nothing more; what arrives stays in the network."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Read again."""
        if not self._is_reading:
            self._is_reading = True
            self.loop.call_soon(self._incoming.read)

    def is_reading(self) -> bool:
        """Whether what arrives is read."""
        return self._is_reading

    def get_write_buffer_size(self) -> int:
        """Return how many bytes were written and have not left."""
        return len(self._outgoing.unsent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set beyond how many bytes the protocol is paused, and from how many on it goes on."""
        self._high = HIGH_WATER_BYTES if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return both marks, the low one first."""
        return self._low, self._high

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Say who is at the two ends: ``peername`` and ``sockname``."""
        return self.link.names_for(self).get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give what comes to another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that is given what comes."""
        return self._protocol

    # What the link calls

    @property
    def _as_protocol(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", self._protocol)

    def take(self, piece: bytes) -> None:
        """Give a piece to the protocol, or the end of the other side's sending."""
        if self._is_closing:
            return
        if piece == _FIN:
            if not self._as_protocol.eof_received():
                self.close()
        else:
            self._as_protocol.data_received(piece)

    def drained(self) -> None:
        """Let the protocol write again, if enough has left."""
        if self._is_paused and len(self._outgoing.unsent) <= self._low:
            self._is_paused = False
            self.loop.call_soon(self._resume_writing)

    def _resume_writing(self) -> None:
        if not self._is_over:
            self._as_protocol.resume_writing()

    def flushed(self) -> None:
        """All was sent, with the end: a closed end is over."""
        if self._is_closing:
            self.end(None)

    def end(self, error: Exception | None) -> None:
        """Tell the protocol that this end is gone. Idempotent."""
        if not self._is_over:
            self._is_over = self._is_closing = True
            self._outgoing.drop_unsent()
            self.loop.call_soon(self._protocol.connection_lost, error)


class Link:
    """
    One connection between two loops, and what can go wrong with it.

    Attributes:
        latency: Seconds from one end to the other.
        segment_bytes: At most so many bytes arrive at a time.
        window_bytes: See :data:`WINDOW_BYTES`.
        idle_limit: A proxy between the ends cuts after so many seconds without a byte.
        client: The end of whoever connected.
        server: The end of whoever listened.
    """

    def __init__(
        self,
        client: SimulatedLoop,
        server: SimulatedLoop,
        *,
        latency: float = 0.001,
        segment_bytes: int = WINDOW_BYTES,
        window_bytes: int = WINDOW_BYTES,
        idle_limit: float | None = None,
    ) -> None:
        self.latency = latency
        self.segment_bytes = segment_bytes
        self.window_bytes = window_bytes
        self.idle_limit = idle_limit
        self.is_stalled = False
        self.is_lost = False
        self.client = End(client, self)
        self.server = End(server, self)
        self._up, self._down = Way(self), Way(self)
        self.client.join(self._up, self._down)
        self.server.join(self._down, self._up)
        self._moved_at = client.time()
        self._watch_idleness()

    def names_for(self, end: End) -> dict[str, tuple[str, int]]:
        """Return what an end says of itself and of its peer."""
        names = ("127.0.0.1", 80), ("127.0.0.1", 50_000)
        ours, theirs = reversed(names) if end is self.client else names
        return {"sockname": ours, "peername": theirs}

    async def open(
        self, ours: Callable[[], P], theirs: ProtocolFactory
    ) -> tuple[asyncio.Transport, P]:
        """Give each end its protocol; the server's is there before the client's."""
        opened = self.client.loop.create_future()
        self.server.loop.call_later(self.latency, self._accept, theirs, opened)
        await opened
        protocol = ours()
        self.client.set_protocol(protocol)
        protocol.connection_made(self.client)
        return self.client, protocol

    def _accept(self, factory: ProtocolFactory, opened: asyncio.Future[None]) -> None:
        if self.server.is_closing():
            return  # the client has gone meanwhile
        protocol = factory()
        self.server.set_protocol(protocol)
        protocol.connection_made(self.server)
        self.client.loop.call_later(self.latency, _release, opened)

    @property
    def is_whole(self) -> bool:
        """Whether what either end writes reaches the other, sooner or later."""
        return not (self.is_lost or self.client.is_closing() or self.server.is_closing())

    # What can go wrong

    def stall(self) -> None:
        """Let nothing more leave, either way; what flies arrives."""
        self.is_stalled = True

    def release(self) -> None:
        """Let bytes leave again. Idempotent."""
        self.is_stalled = False
        for way in (self._up, self._down):
            way.move()
            way.sender.drained()

    def lose(self) -> None:
        """Become half open: what is sent or flies from now on vanishes, and nobody is told."""
        self.is_lost = True
        for way in (self._up, self._down):
            way.lose()

    def cut(self, kept_bytes: int = 0) -> None:
        """Break: what flies is lost but for the first bytes each way, and both ends are told."""
        self.is_lost = True
        for way in (self._up, self._down):
            way.lose(kept_bytes)
            end = way.receiver
            end.loop.call_later(self.latency if kept_bytes else 0.0, self.reset, end)

    def reset(self, end: End) -> None:
        """Tell one end that the connection is gone; what it had not read is lost."""
        end.end(ConnectionResetError("the connection was reset"))

    def reset_from(self, end: End) -> None:
        """Drop an end; the other one learns of it unless the network lets nothing through."""
        end.end(None)
        other = self.server if end is self.client else self.client
        if not self.is_lost and not self.is_stalled:
            other.loop.call_later(self.latency, self.reset, other)

    # Idleness

    def note_moved(self) -> None:
        """Bytes left one of the ends."""
        self._moved_at = self.client.loop.time()

    def _watch_idleness(self) -> None:
        if self.idle_limit is None:
            return
        due = self._moved_at + self.idle_limit
        if self.client.loop.time() >= due:
            self.cut()
        else:
            self.client.loop.call_at(due, self._watch_idleness)


def _release(opened: asyncio.Future[None]) -> None:
    if not opened.done():
        opened.set_result(None)

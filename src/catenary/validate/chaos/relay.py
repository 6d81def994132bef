"""One connection through the proxy: two sockets, and the path between them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

from catenary.validate.chaos.faults import Ending, Way
from catenary.validate.chaos.journal import Incident
from catenary.validate.chaos.path import Path

logger = logging.getLogger("catenary.chaos")

SOCKET_BUFFER_BYTES = 64 * 1024
"""What the system may hold for a socket here, so that little is under way beside the path."""

HANG_UP_PATIENCE = 1.0
"""How long a peer that was sent an end may take to close."""

NO_LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""A socket that does not linger is reset when it is closed."""

Dial = Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]]


class Side(asyncio.Protocol):
    """A socket of a relay: the one to the client, or the one to the server."""

    transport: asyncio.Transport | None = None

    def __init__(self, relay: Relay, way: Way) -> None:
        self.way = way
        """The way of what the peer sends."""
        self.is_writable = False
        self.is_gone = False
        self._has_heard_end = False
        self._relay = relay
        self._has_sent_end = False
        self._patience: asyncio.TimerHandle | None = None

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # Not asked by isinstance: uvloop's transports are none of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._set_option(buffer, SOCKET_BUFFER_BYTES)
        self.is_writable = True
        self._relay.side_opened(self)

    def data_received(self, data: bytes) -> None:
        """Hand on what the peer sent."""
        self._relay.receive_data(self.way, data)

    def eof_received(self) -> bool:
        """Hand on the end of the peer's sending; until the relay is over the socket stays open."""
        self._has_heard_end = True
        return self._relay.receive_eof(self.way)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the socket is closed."""
        self.is_gone, self.is_writable = True, False
        if self._patience is not None:
            self._patience.cancel()
        self._relay.side_gone(self)

    def pause_writing(self) -> None:
        """Send nothing more for now."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """Go on."""
        self.is_writable = True
        self._relay.pump()

    # What the relay calls

    def send(self, data: bytes) -> None:
        """Send to the peer."""
        assert self.transport is not None
        self.transport.write(data)

    def send_end(self) -> None:
        """End the sending to the peer, which may go on sending. Idempotent."""
        if self.transport is not None and not self.is_gone and not self._has_sent_end:
            self._has_sent_end = True
            try:
                self.transport.write_eof()
            except OSError:
                # The peer has vanished, and the loop did not notice.
                self.transport.abort()

    def read(self) -> None:
        """Take bytes from the peer. Idempotent, as its opposite is."""
        if self.transport is not None and not self._has_heard_end:
            self.transport.resume_reading()

    def leave_unread(self) -> None:
        """Leave what the peer sends to TCP, which will make it stop."""
        if self.transport is not None and not self._has_heard_end:
            self.transport.pause_reading()

    def close(self, ending: Ending) -> None:
        """
        Close the socket.

        By an end the peer reads all that was sent, and then the end. What it
        still sends is thrown away until it closes too: unread, it would make
        the close a reset.
        """
        if self.transport is None or self.is_gone:
            return
        if ending is Ending.RESET:
            self.drop()
        elif self._has_heard_end:
            self.transport.close()
        else:
            self.send_end()
            self.transport.resume_reading()
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(HANG_UP_PATIENCE, self.drop)

    def drop(self) -> None:
        """Reset the socket."""
        if self.transport is not None and not self.is_gone:
            self._set_option(socket.SO_LINGER, NO_LINGER)
            self.transport.abort()

    def _set_option(self, option: int, value: int | bytes) -> None:
        assert self.transport is not None
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, value)


class Relay:
    """
    Moves bytes between two sockets as a path has it.

    Of one way it holds ``buffer_bytes``, and what a read brings beyond that;
    then it leaves the sender to TCP. ``dial`` connects a protocol to the server;
    ``note`` is told what happens; ``on_gone`` once both sockets are closed.
    """

    def __init__(
        self,
        path: Path,
        dial: Dial,
        *,
        buffer_bytes: int,
        note: Callable[[int, Incident, str], None],
        on_gone: Callable[[Relay], None],
    ) -> None:
        self.path = path
        self.client = Side(self, Way.UP)
        self._server = Side(self, Way.DOWN)
        self._sides = (self.client, self._server)
        self._dial = dial
        self._buffer_bytes = buffer_bytes
        self._note = note
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._dialing: asyncio.Task[None] | None = None
        self._is_over = False

    # What the proxy calls

    def pump(self) -> None:
        """Do what is due, and come back when something more is."""
        if self._is_over:
            return
        now = self._loop.time()
        for side in self._sides:
            self._send(side, now)
        self.path.advance(now)
        for incident, detail in self.path.take_incidents():
            self._note(self.path.number, incident, detail)
        if self.path.ending is not None:
            self.close(self.path.ending)
            return
        for side in self._sides:
            if self.path.held_bytes(side.way) < self._buffer_bytes:
                side.read()
            else:
                side.leave_unread()
        self._set_timer()
        if self._dialing is None and self.path.is_moving and self.client.transport is not None:
            self._dialing = self._loop.create_task(self._open())
            self._dialing.add_done_callback(lambda _: self._check_gone())

    def close(self, ending: Ending) -> None:
        """Close both sockets."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._dialing is not None:
            self._dialing.cancel()
        for side in self._sides:
            side.close(ending)

    # What the sides call

    def side_opened(self, side: Side) -> None:
        """Begin with a socket."""
        if self._is_over:
            side.drop()
        self.pump()

    def receive_data(self, way: Way, data: bytes) -> None:
        """Take bytes of a peer; those that come after the end are thrown away."""
        self.path.receive_data(way, data, self._loop.time())
        self.pump()

    def receive_eof(self, way: Way) -> bool:
        """Take the end of a peer's sending; return whether its socket is still needed."""
        self.path.receive_eof(way, self._loop.time())
        self.pump()
        return not self._is_over

    def side_gone(self, side: Side) -> None:
        """Take the loss of a socket."""
        self.path.receive_loss(side.way, self._loop.time())
        self.pump()
        self._check_gone()

    # Inside

    async def _open(self) -> None:
        try:
            await self._dial(lambda: self._server)
        except OSError as error:
            number = self.path.number
            logger.warning("connection %d does not reach the server: %s", number, error)
            self.path.receive_refusal(str(error))
            self.pump()

    def _send(self, side: Side, now: float) -> None:
        if not side.is_writable:
            return
        way = side.way.back
        data = self.path.data_to_send(way, now)
        if data:
            side.send(data)
        if self.path.is_at_end(way):
            side.send_end()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.path.next_due(*(side.way.back for side in self._sides if side.is_writable))
        self._timer = None if due is None else self._loop.call_at(due, self.pump)

    def _check_gone(self) -> None:
        is_dialing = self._dialing is not None and not self._dialing.done()
        has_server = self._server.transport is not None and not self._server.is_gone
        if self.client.is_gone and not is_dialing and not has_server:
            self._on_gone(self)

"""
What a connection needs of a socket, and what it offers to one.

Pure: no I/O, no clock. :class:`Transport` and :class:`Receiver` are contracts
between two objects that live on one event loop; neither is thread-safe.
:class:`FrontTransport` stands in front of another one; :class:`HoldingTransport`
holds one back; :class:`StallingTransport` has no socket, for tests.
"""

from __future__ import annotations

from typing import Protocol

from catenary.errors import UsageError

HIGH_WATER_BYTES = 64 * 1024
"""A transport that holds more than this is paused."""

LOW_WATER_BYTES = 16 * 1024
"""A paused transport that holds this or less is writable again."""


class Transport(Protocol):
    """
    One open WebSocket connection, as the side that sends on it sees it.

    No method blocks, and none calls the receiver before it has returned. After
    the closing began, by either side, every method may still be called and
    does nothing; the properties keep their last values.
    """

    @property
    def is_paused(self) -> bool:
        """
        Whether the write buffer is above the high water mark.

        What is written then is still kept and sent, so memory grows: a caller
        that wants it bounded stops until :meth:`Receiver.writable`.
        """
        ...

    @property
    def bytes_taken(self) -> int:
        """
        Of all bytes written, how many the socket took. It never decreases.

        A peer whose connection takes no byte and sends none is gone. Bytes
        that were thrown away by :meth:`abort` or a reset do not count.
        """
        ...

    @property
    def buffered_bytes(self) -> int:
        """How many bytes were written and not yet taken by the socket."""
        ...

    @property
    def last_heard(self) -> float:
        """When a byte last came from the peer, as ``loop.time()``, in seconds."""
        ...

    def write(self, data: bytes) -> None:
        """
        Send one or more complete, unmasked server frames, joined.

        The caller builds the frames; they are not checked. One call is one
        write to the socket, so frames that are ready together go together.
        """
        ...

    def ping(self) -> None:
        """
        Send a protocol ping.

        At most one is outstanding: until its pong arrived further calls do
        nothing. The pong moves :attr:`last_heard`.
        """
        ...

    def pause_reading(self) -> None:
        """
        Read nothing more from the peer until :meth:`resume_reading`.

        Messages that had already arrived together may still be received. The
        peer's close is not noticed either.
        """
        ...

    def resume_reading(self) -> None:
        """Read from the peer again."""
        ...

    def close(self, code: int, reason: str) -> None:
        """
        Send a close frame after all that was written, and wait for the answer.

        ``reason`` is cut to the 123 bytes that a close frame holds. If the peer
        has not finished the closing handshake after 5 s, the connection is
        aborted. No message is received any more.
        """
        ...

    def abort(self) -> None:
        """Drop the connection at once, with what is still buffered."""
        ...


class Receiver(Protocol):
    """
    What a connection does with what comes from the peer.

    Called on the loop of the connection. An exception from
    :meth:`message_received` or :meth:`writable` is logged and closes the
    connection with 1011.
    """

    def message_received(self, message: str | bytes) -> None:
        """Take one whole message: text as ``str``, binary as ``bytes``."""
        ...

    def writable(self) -> None:
        """Continue writing: a paused transport drained below its low water mark."""
        ...

    def closed(self, code: int, reason: str) -> None:
        """
        Take note that the connection is gone. Called exactly once, always last.

        ``code`` and ``reason`` are those of the first close frame, whoever sent
        it: 1005 if it had no code, 1006 if there was none.
        """
        ...


class FrontTransport:
    """A :class:`Transport` in front of another one, that does what that one does; a base."""

    def __init__(self, behind: Transport) -> None:
        self.behind = behind

    @property
    def is_paused(self) -> bool:
        return self.behind.is_paused

    @property
    def bytes_taken(self) -> int:
        return self.behind.bytes_taken

    @property
    def buffered_bytes(self) -> int:
        return self.behind.buffered_bytes

    @property
    def last_heard(self) -> float:
        return self.behind.last_heard

    def write(self, data: bytes) -> None:
        self.behind.write(data)

    def ping(self) -> None:
        self.behind.ping()

    def pause_reading(self) -> None:
        self.behind.pause_reading()

    def resume_reading(self) -> None:
        self.behind.resume_reading()

    def close(self, code: int, reason: str) -> None:
        self.behind.close(code, reason)

    def abort(self) -> None:
        self.behind.abort()


class HoldingTransport(FrontTransport):
    """
    A :class:`Transport` that can hold another one back, as a peer that stopped reading would.

    While it holds, it is paused, and what is written is kept in its order until
    :meth:`release` lets the transport behind and the receiver go on. A cursor
    on it stops at once; a ping overtakes what is kept.
    """

    def __init__(self, behind: Transport, receiver: Receiver) -> None:
        super().__init__(behind)
        self._receiver = receiver
        self._held: list[bytes] = []
        self.is_holding = False

    def hold(self) -> None:
        """Send nothing more until :meth:`release`."""
        self.is_holding = True

    def release(self) -> None:
        """Send what was held, in one write, and go on. Idempotent."""
        if not self.is_holding:
            return
        self._let_go()
        if not self.behind.is_paused:
            self._receiver.writable()

    def _let_go(self) -> None:
        self.is_holding = False
        held, self._held = self._held, []
        if held:
            self.behind.write(b"".join(held))

    @property
    def is_paused(self) -> bool:
        """Whether it holds, or the transport behind is paused."""
        return self.is_holding or self.behind.is_paused

    @property
    def buffered_bytes(self) -> int:
        """How many bytes were written and not yet taken, those that are held included."""
        return sum(map(len, self._held)) + self.behind.buffered_bytes

    def write(self, data: bytes) -> None:
        """Send, or hold."""
        if self.is_holding:
            self._held.append(data)
        else:
            self.behind.write(data)

    def close(self, code: int, reason: str) -> None:
        """Send what was held, and close."""
        self._let_go()
        self.behind.close(code, reason)

    def abort(self) -> None:
        """Drop the connection, with what is held."""
        self._held.clear()
        self.behind.abort()


class StallingTransport:
    """
    A :class:`Transport` without a socket, which a test stalls, drains and kills.

    It takes every byte at once until :meth:`stall`; then it buffers, and is
    paused above its high water mark, until :meth:`drain`. Only the methods
    that play the peer call the receiver, never the transport's own, as with
    a real socket. ``receiver`` may be set after the making, before any of
    them is called.

    Attributes:
        writes: What each call of ``write`` was given, in order.
        pings: How many pings were sent.
        is_reading: Whether reading is not paused.
        closing: The code and reason given to ``close``, or None.
        is_aborted: Whether ``abort`` was called.
        last_heard: See :class:`Transport`; :meth:`say` and :meth:`pong` move it.
    """

    def __init__(
        self,
        receiver: Receiver | None = None,
        *,
        high_water_bytes: int = HIGH_WATER_BYTES,
        low_water_bytes: int = LOW_WATER_BYTES,
        now: float = 0.0,
    ) -> None:
        self.receiver = receiver
        self.writes: list[bytes] = []
        self.pings = 0
        self.is_reading = True
        self.closing: tuple[int, str] | None = None
        self.is_aborted = False
        self.last_heard = now
        self._high_water_bytes = high_water_bytes
        self._low_water_bytes = low_water_bytes
        self._is_stalled = False
        self._is_paused = False
        self._is_closed = False
        self._is_ping_outstanding = False
        self._written = 0
        self._taken = 0

    # The transport's side.

    @property
    def is_paused(self) -> bool:
        """Whether the write buffer is above the high water mark."""
        return self._is_paused

    @property
    def bytes_taken(self) -> int:
        """Of all bytes written, how many were taken."""
        return self._taken

    @property
    def buffered_bytes(self) -> int:
        """How many bytes were written and not yet taken."""
        return 0 if self._is_closed else self._written - self._taken

    def write(self, data: bytes) -> None:
        """Record ``data``, and take it unless stalled."""
        if self._is_over:
            return
        self.writes.append(data)
        self._written += len(data)
        if not self._is_stalled:
            self._taken = self._written
        self._is_paused = self._is_paused or self.buffered_bytes > self._high_water_bytes

    def ping(self) -> None:
        """Count a ping, unless one is outstanding."""
        if not self._is_over and not self._is_ping_outstanding:
            self._is_ping_outstanding = True
            self.pings += 1

    def pause_reading(self) -> None:
        """Note that nothing may be said until :meth:`resume_reading`."""
        self.is_reading = False

    def resume_reading(self) -> None:
        """Note that the peer may speak again."""
        self.is_reading = True

    def close(self, code: int, reason: str) -> None:
        """Record the code and reason; :meth:`die` completes it."""
        if not self._is_over:
            self.closing = (code, reason)

    def abort(self) -> None:
        """Record the abort; :meth:`die` completes it."""
        self.is_aborted = True

    # The peer's side.

    @property
    def written(self) -> bytes:
        """All that was written, joined."""
        return b"".join(self.writes)

    def stall(self) -> None:
        """Take nothing more until :meth:`drain`: the peer stops reading."""
        self._is_stalled = True

    def drain(self, size: int | None = None) -> None:
        """
        Take ``size`` bytes of the buffer, or all of it and end the stall.

        Calls ``writable`` if that ends a pause.
        """
        if size is None:
            self._is_stalled = False
            size = self.buffered_bytes
        self._taken += min(size, self.buffered_bytes)
        if self._is_paused and self.buffered_bytes <= self._low_water_bytes:
            self._is_paused = False
            if not self._is_over:
                self._known_receiver.writable()

    def say(self, message: str | bytes, *, now: float | None = None) -> None:
        """
        Deliver a message from the peer, heard at ``now``.

        Raises:
            UsageError: If reading is paused, or the connection closing.
        """
        if self._is_over or not self.is_reading:
            raise UsageError("a transport that is paused or closing receives no message")
        self._hear(now)
        self._known_receiver.message_received(message)

    def pong(self, *, now: float | None = None) -> None:
        """Answer the outstanding ping."""
        self._is_ping_outstanding = False
        self._hear(now)

    def die(self, code: int = 1006, reason: str = "") -> None:
        """
        End the connection, and call ``closed`` if it was not called before.

        If the transport was closed before, it reports that code and reason.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._is_paused = False
        self._known_receiver.closed(*(self.closing or (code, reason)))

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self.is_aborted or self.closing is not None

    @property
    def _known_receiver(self) -> Receiver:
        if self.receiver is None:
            raise UsageError("set the receiver of a StallingTransport before playing its peer")
        return self.receiver

    def _hear(self, now: float | None) -> None:
        if now is not None:
            self.last_heard = now

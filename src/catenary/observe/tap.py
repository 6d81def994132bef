"""A close look at one connection: references to what is written to it, kept for a while."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from catenary.manager import on_its_loop
from catenary.observe.follower import Finding, Follower
from catenary.transport import FrontTransport, Transport
from catenary.wires.native import split_frames

if TYPE_CHECKING:
    from catenary.connection import Connection

CAPTURE_BYTES = 256 * 1024
"""So much is kept of one connection; then it is full, and nothing more is kept."""


class Capture:
    """What was written to a connection and not looked at yet."""

    __slots__ = ("bytes_held", "is_full", "was_paused", "writes")

    def __init__(self) -> None:
        # A deque, for the connection's loop may run on another thread than whoever looks.
        self.writes: deque[tuple[float, bytes]] = deque()
        self.bytes_held = 0
        self.is_full = False
        self.was_paused = False
        """Whether the socket was full: what is late then is late because of its reader."""


class Tap(FrontTransport):
    """A transport that keeps references to what is written, and does nothing with it."""

    def __init__(self, behind: Transport, capture: Capture) -> None:
        super().__init__(behind)
        self._capture = capture

    @property
    def is_paused(self) -> bool:
        """Whether the transport behind is paused; if so, that is noted."""
        is_paused = self.behind.is_paused
        if is_paused:
            self._capture.was_paused = True
        return is_paused

    def write(self, data: bytes) -> None:
        """Send, and keep."""
        capture = self._capture
        if not capture.is_full:
            capture.writes.append((time.time(), data))
            capture.bytes_held += len(data)
            capture.is_full = capture.bytes_held > CAPTURE_BYTES
        self.behind.write(data)


class Seen(NamedTuple):
    """One frame that was looked at."""

    is_event: bool
    latency: float | None
    """Seconds from the emission of its event to its write; None where that tells nothing."""
    finding: Finding | None


class CloseLook:
    """
    One connection under a close look, from :meth:`begin` to :meth:`end`.

    Any thread may look; what changes the connection happens on its own loop. It
    keeps neither the connection nor its transport alive.
    """

    def __init__(self, connection: Connection, *, since: float) -> None:
        self.since = since
        self.connection_id = connection.session.connection_id
        self.user_id = connection.identity.user_id if connection.identity is not None else None
        self.log_id = connection.log_id
        self._connection = weakref.ref(connection)
        self._capture = Capture()
        self._follower: Follower | None = None
        self._began_at_ms = time.time_ns() // 1_000_000
        self._is_readers_fault = False

    def begin(self) -> None:
        """Begin to keep what is written."""
        self._soon(self._put_tap)

    def end(self) -> None:
        """Keep nothing more."""
        self._capture.is_full = True
        self._soon(self._take_tap)

    def _soon(self, act: Callable[[], None]) -> None:
        connection = self._connection()
        if connection is not None:
            on_its_loop(connection, act)

    def _put_tap(self) -> None:
        """Put the tap before the connection's transport, at its present place."""
        connection = self._connection()
        if connection is None or connection.stream is None or self._capture.is_full:
            return
        self._follower = Follower(
            connection.place,
            # A log that is shared has events of several users.
            user_id=self.user_id if self.log_id == self.user_id else None,
            thread_ids=connection.thread_ids,
        )
        self._is_readers_fault = connection.place != connection.stream.position
        connection.transport = Tap(connection.transport, self._capture)

    def _take_tap(self) -> None:
        connection = self._connection()
        # Under a transport that was put in front later it stays, and passes everything on.
        if connection is not None and isinstance(connection.transport, Tap):
            connection.transport = connection.transport.behind

    @property
    def connection(self) -> Connection | None:
        """The connection, while it is open and there is room for what is written to it."""
        connection = self._connection()
        if connection is None or connection.stream is None or self._capture.is_full:
            return None
        return connection

    def frames(self) -> Iterator[Seen]:
        """Look at what was kept, oldest first, and forget it."""
        capture, follower = self._capture, self._follower
        # A reader that was full before this look may still be catching up.
        was_late, self._is_readers_fault = self._is_readers_fault, capture.was_paused
        capture.was_paused = False
        is_telling = not (was_late or self._is_readers_fault)
        while capture.writes and follower is not None:
            at, data = capture.writes.popleft()
            for frame in split_frames(data):
                event, finding = follower.follow(frame)
                sent = event.timestamp if event is not None and is_telling else None
                yield Seen(event is not None, self._latency(sent, at), finding)
        if not capture.is_full:
            capture.bytes_held = 0

    def _latency(self, timestamp: int | None, at: float) -> float | None:
        # What was emitted before is read back from the log: its age says nothing.
        if timestamp is None or timestamp < self._began_at_ms:
            return None
        return max(0.0, at - timestamp / 1000)

"""One direction of a connection, sans I/O: what goes in comes out later, and in order."""

from __future__ import annotations

import enum
from collections import deque
from random import Random

from catenary.validate.chaos.faults import CHUNK_BYTES, Faults, Way
from catenary.validate.chaos.journal import Incident

PACKET_BYTES = 1460
"""A throttled link carries packets of this size: an Ethernet's, without its headers."""


class Mark(enum.Enum):
    """What can follow the bytes of a link, in their order."""

    EOF = enum.auto()
    """The sender has ended its sending."""
    CUT = enum.auto()
    """Here the connection is cut."""
    SILENCE = enum.auto()
    """Here it goes silent."""


class Link:
    """
    Delays, throttles, splits and alters what one side sends.

    Feed it bytes with :meth:`receive_data`; ask for them with :meth:`take` when
    :attr:`next_due` has come. ``now`` is a monotonic time in seconds that never
    decreases. Nothing is lost or reordered; only :attr:`held_bytes` tells how
    much is under way, so the caller stops feeding a link that holds too much.
    """

    def __init__(self, way: Way, faults: Faults, random: Random) -> None:
        self._way = way
        self._random = random
        self._queue: deque[tuple[float, bytes | Mark]] = deque()
        self._free_at = 0.0
        self._last_due = 0.0
        self._passed_bytes = 0
        self.faults = faults
        """What holds for what arrives from now on."""
        self.held_bytes = 0
        self.incidents: list[Incident] = []
        """What chance did to chunks; the caller clears it."""

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes of the sender."""
        for start in range(0, len(data), CHUNK_BYTES):
            self._receive_chunk(data[start : start + CHUNK_BYTES], now)

    def receive_mark(self, mark: Mark, now: float) -> None:
        """Take what follows the bytes so far."""
        self._put(self.arrival(now), mark)

    def arrival(self, now: float) -> float:
        """When what is sent now, after the bytes so far, arrives, if chance does nothing to it."""
        return max(self._last_due, max(self._free_at, now) + self.faults.delay)

    @property
    def next_due(self) -> float | None:
        """When something can be taken; None while nothing is under way."""
        return self._queue[0][0] if self._queue else None

    def take(self, now: float) -> bytes:
        """
        Return what is due, for one write; empty if nothing is, or if a mark is next.

        Of a link that splits it is one piece, however many are due.
        """
        due: list[bytes] = []
        while self._queue and self._queue[0][0] <= now:
            piece = self._queue[0][1]
            if isinstance(piece, Mark):
                break
            self._queue.popleft()
            self.held_bytes -= len(piece)
            due.append(piece)
            if self.faults.split_bytes is not None:
                break
        return b"".join(due)

    def take_mark(self, now: float) -> Mark | None:
        """Return the mark that is due, if one is next."""
        if not self._queue or self._queue[0][0] > now or isinstance(self._queue[0][1], bytes):
            return None
        return self._queue.popleft()[1]  # type: ignore[return-value]

    def _receive_chunk(self, chunk: bytes, now: float) -> None:
        faults = self.faults
        # As many draws whatever the faults, so that one fault does not move the others.
        jitter, loss, stall, corrupt, place, other = (self._random.random() for _ in range(6))
        begin, later = max(self._free_at, now), faults.delay + faults.jitter * jitter
        is_spared = self._passed_bytes < faults.corrupt_after_bytes
        self._passed_bytes += len(chunk)
        if corrupt < faults.corrupt and not is_spared:
            self.incidents.append(Incident.CORRUPTED)
            chunk = _altered(chunk, int(place * len(chunk)), 1 + int(other * 255))
        if stall < faults.stall:
            self.incidents.append(Incident.STALLED)
            begin += faults.stall_seconds
        if loss < faults.loss:
            self.incidents.append(Incident.LOST)
            later += faults.retransmit
        rate, size = self._rate, self._piece_bytes
        for start in range(0, len(chunk), size):
            piece = chunk[start : start + size]
            begin += 0.0 if rate is None else len(piece) / rate
            self.held_bytes += len(piece)
            self._put(begin + later, piece)
        self._free_at = begin

    def _put(self, due: float, piece: bytes | Mark) -> None:
        # What comes later waits for what comes first, as TCP's receiver does.
        self._last_due = max(self._last_due, due)
        self._queue.append((self._last_due, piece))

    @property
    def _rate(self) -> float | None:
        if self._way is Way.UP and self.faults.bytes_per_second_up is not None:
            return self.faults.bytes_per_second_up
        return self.faults.bytes_per_second

    @property
    def _piece_bytes(self) -> int:
        size = CHUNK_BYTES if self._rate is None else PACKET_BYTES
        return min(size, self.faults.split_bytes or size)


def _altered(chunk: bytes, place: int, change: int) -> bytes:
    altered = bytearray(chunk)
    altered[place] ^= change
    return bytes(altered)

"""What a network did, and when."""

from __future__ import annotations

import enum
import time
from collections import Counter
from typing import NamedTuple

ENTRIES_KEPT = 100_000


class Incident(enum.StrEnum):
    """What can happen to one connection."""

    OPENED = "opened"
    """A client connected."""
    REFUSED = "refused"
    """It was dropped at once."""
    UNREACHABLE = "unreachable"
    """The server did not take it; the client was reset."""
    ENDED = "ended"
    """The peers ended it."""
    VANISHED = "vanished"
    """A peer reset it, or was gone."""
    CUT = "cut"
    """The network ended it."""
    RESET = "reset"
    """The network reset it."""
    HALF_OPEN = "half open"
    """It went silent."""
    STALLED = "stalled"
    """A direction was held up."""
    LOST = "lost"
    """A chunk arrived by its retransmission."""
    CORRUPTED = "corrupted"
    """A byte was altered."""


class Entry(NamedTuple):
    """
    One thing that happened.

    ``at`` is in seconds since the network began. Of a connection, ``what`` is an
    :class:`Incident`; without one it is an :class:`Action` on the network as a
    whole, or ``faults`` with the new ones.
    """

    at: float
    connection: int | None
    what: str
    detail: str = ""


class Journal:
    """
    What happened on a network, in order, for the timeline of a report.

    It keeps the first 100,000 entries, and counts all. May be read from any thread.
    """

    def __init__(self) -> None:
        self.began = 0.0
        """When the network began, in seconds since 1970; 0 until then."""
        self._entries: list[Entry] = []
        self._counts: Counter[str] = Counter()

    def begin(self) -> None:
        """Take note that the network begins."""
        self.began = time.time()

    def note(self, entry: Entry) -> None:
        """Add an entry."""
        if len(self._entries) < ENTRIES_KEPT:
            self._entries.append(entry)
        if entry.connection is not None:
            self._counts[entry.what] += 1

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries so far."""
        return tuple(self._entries)

    def count(self, *incidents: Incident) -> int:
        """How often one of these happened to a connection."""
        return sum(self._counts[incident] for incident in incidents)

"""
What a campaign found: of each row what was asked, what was measured, and whether it holds.

Pure data, which a report is made of and which an earlier report is compared with.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

import msgspec


class Verdict(enum.StrEnum):
    """What became of a row."""

    HOLDS = "holds"
    FALLS_SHORT = "falls short"
    LEFT_OUT = "left out"
    """This bridge cannot be asked: it runs elsewhere, or something is not installed."""


class Better(enum.StrEnum):
    """In which direction a figure is good."""

    LOWER = "lower"
    HIGHER = "higher"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number that a row measured, such as ``p99`` in ``ms``."""

    name: str
    value: float
    unit: str
    better: Better


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """Where one client stood over time: pairs of seconds since the row's start and ``seq``."""

    client: str
    points: list[tuple[float, int]]


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done to the network or the server, ``at`` seconds after the start."""

    at: float
    what: str


class Evidence(msgspec.Struct, kw_only=True):
    """What the plots of a report show. Times in seconds."""

    latencies: list[float] = []
    """From the call of the verb to the receipt of the event by its reader."""
    reconnects: list[float] = []
    """From the loss of a connection to ``live`` on the next one."""
    arrivals: list[float] = []
    """When each event was received, since the row's start."""
    tracks: list[Track] = []
    happenings: list[Happening] = []


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one row."""

    suite: str
    row: str
    asked: str
    measured: str
    verdict: Verdict
    faults: list[str] = []
    """What does not hold, or why the row was left out."""
    slow: list[str] = []
    """What holds, but not as fast as it is asked."""
    seconds: float = 0.0
    figures: list[Figure] = []
    evidence: Evidence = msgspec.field(default_factory=Evidence)

    @property
    def name(self) -> str:
        """The row with its suite."""
        return f"{self.suite}: {self.row}"


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a campaign ran."""

    catenary: str
    python: str
    system: str
    processor: str
    cores: int
    memory_bytes: int
    packages: dict[str, str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that a campaign found. ``started_at`` in seconds since 1970."""

    version: int = 1
    """Of this format."""
    started_at: float
    seconds: float
    seed: str
    scale: str
    bridge: str
    """What was validated, in words: ``memory://`` here, or the address of a server."""
    surroundings: Surroundings
    outcomes: list[Outcome]

    def of(self, verdict: Verdict) -> list[Outcome]:
        """Return the rows with this verdict."""
        return [outcome for outcome in self.outcomes if outcome.verdict is verdict]

    @property
    def holds(self) -> bool:
        """Whether no row falls short."""
        return not self.of(Verdict.FALLS_SHORT)


def quantile(values: Sequence[float], share: float) -> float:
    """
    Return the value below which ``share`` of all lie: the nearest rank.

    Raises:
        ValueError: If there are none.
    """
    if not values:
        raise ValueError("there is no quantile of nothing")
    ranked = sorted(values)
    # The tolerance is for shares such as 0.07, which no float is.
    return ranked[max(0, math.ceil(share * len(ranked) - 1e-9) - 1)]

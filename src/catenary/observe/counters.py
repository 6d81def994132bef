"""
Counters: what the bridge counts as it works.

Plain numbers, cheap enough for the hot path; ``metrics.py`` shows them to
Prometheus. Increments are not atomic across threads: a rare one may be lost
under contention, which metrics forgive.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

LATENCY_BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Upper bounds of the buckets, in seconds."""


class Latencies:
    """A histogram of seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self.total += seconds


class MonitorCounters:
    """What the monitors of a live bridge found; nothing while they are off."""

    def __init__(self) -> None:
        self.connections_sampled = 0
        self.events_checked = 0
        self.violations: Counter[str] = Counter()
        """What sampled connections were given that the wire does not allow, by fault."""
        self.latency_seconds = Latencies()
        """From the emission of an event to its write, on sampled connections."""
        self.runs_silent = 0
        self.drop_ratio = 0.0
        self.users_crowded = 0
        self.intake_ratio = 0.0


class Counters:
    """Everything that one bridge counts."""

    def __init__(self) -> None:
        self.monitor = MonitorCounters()
        self.connections_opened = 0
        self.reconnects = 0
        """Connections that named a position: someone came back."""
        self.events_delivered = 0
        self.events_replayed = 0
        self.events_merged = 0
        """Events that reached a reader within another one."""
        self.closes: Counter[int] = Counter()
        """Closed connections by code."""
        self.gaps: Counter[str] = Counter()
        """Gaps by reason."""
        self.authentications: Counter[str] = Counter()
        """Authentications by result: ``ok``, or the reason of the refusal."""
        self.inbound: Counter[str] = Counter()
        """Client messages by result: ``ok``, ``repeat``, or the error code."""
        self.runs_ended: Counter[str] = Counter()
        """Ended runs by type of end."""
        self.delivery_seconds = Latencies()
        """From the first commit of a turn to the write."""

"""The monitor of threads: finds what threads do to each other, in tests of agents and bridges."""

from catenary.validate.threads.journal import (
    ThreadViolations,
    Violation,
    ViolationKind,
    Whereabouts,
)
from catenary.validate.threads.locks import Contention, MonitoredLock, Waits
from catenary.validate.threads.monitor import ThreadMonitor

__all__ = [
    "Contention",
    "MonitoredLock",
    "ThreadMonitor",
    "ThreadViolations",
    "Violation",
    "ViolationKind",
    "Waits",
    "Whereabouts",
]

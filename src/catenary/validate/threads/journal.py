"""What a monitor writes down: violations, with thread, place and time."""

from __future__ import annotations

import datetime as dt
import enum
import threading
import time
from collections.abc import Sequence
from types import FrameType

import msgspec

from catenary.errors import CatenaryError
from catenary.validate.threads.place import place_of

KEPT = 1000
"""How many violations are kept; more are counted."""


class Whereabouts(msgspec.Struct, frozen=True):
    """A thread, and where in the code it is."""

    thread: str
    place: str

    def __str__(self) -> str:
        return f"{self.thread} at {self.place}"


class ViolationKind(enum.StrEnum):
    """What can be wrong between threads."""

    UNGUARDED = "unguarded"
    """Something was called or changed by a thread without its lock."""
    FOREIGN_THREAD = "foreign thread"
    """Something was touched by another thread than the one that it belongs to."""
    TOGETHER = "together"
    """Two threads were in a place that is for one at a time."""
    LOCK_ORDER = "lock order"
    """Locks were taken in an order that can end in a deadlock with another order."""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """
    One rule that was broken.

    Attributes:
        kind: Which rule.
        what: What it was about, such as the name of a lock.
        thread: The name of the thread that broke it.
        place: Where that was, as ``file:line``.
        at: When, in seconds since 1970.
        other: The thread that had a right to it or was there too, and where; if one was.
    """

    kind: ViolationKind
    what: str
    thread: str
    place: str
    at: float
    other: Whereabouts | None = None

    def __str__(self) -> str:
        at = dt.datetime.fromtimestamp(self.at, dt.UTC).isoformat(timespec="milliseconds")
        text = f"{self.kind}: {self.what}, by {self.thread} at {self.place} ({at})"
        return text if self.other is None else f"{text}; {self.other}"


class ThreadViolations(CatenaryError):
    """
    Threads broke the rules that a monitor watched.

    ``violations`` are the first ones, ``count`` says how many there were.
    """

    def __init__(self, violations: Sequence[Violation], count: int) -> None:
        super().__init__(violations, count)
        self.violations = tuple(violations)
        self.count = count

    def __str__(self) -> str:
        lines = [f"- {violation}" for violation in self.violations]
        return "\n".join([f"{self.count} violations between threads:", *lines])


class Journal:
    """
    The violations of one monitor. Thread-safe, also in finalizers and signal handlers.

    ``mutex`` guards what the parts of the monitor share. It is taken only where
    there is something to report, and no other lock is taken inside it.
    """

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.count = 0
        self._kept: list[Violation] = []

    def note(
        self,
        kind: ViolationKind,
        what: str,
        frame: FrameType,
        other: Whereabouts | None = None,
    ) -> None:
        """Write down what the calling thread did at ``frame``."""
        with self.mutex:
            self.count += 1
            if self.count > KEPT:
                return
        violation = Violation(
            kind=kind,
            what=what,
            thread=threading.current_thread().name,
            place=place_of(frame),
            at=time.time(),
            other=other,
        )
        with self.mutex:
            self._kept.append(violation)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The first violations, in the order in which they were seen."""
        with self.mutex:
            return tuple(self._kept)

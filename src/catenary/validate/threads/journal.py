"""What a monitor writes down: violations, with thread, place and time."""

from __future__ import annotations

import datetime as dt
import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TypeVar

import msgspec

from catenary.errors import CatenaryError
from catenary.validate.threads.place import place_of

T = TypeVar("T")

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
    What one monitor writes down.

    Nobody waits for the pen: a note that comes while another thread writes is
    written by that thread. So a monitor adds no lock to the order of those
    that it watches, and may be used in finalizers and signal handlers.
    """

    def __init__(self) -> None:
        self._pen = threading.Lock()
        self._notes: deque[Callable[[], None]] = deque()
        self._count = 0
        self._kept: list[Violation] = []

    def write(self, note: Callable[[], None]) -> None:
        """Call ``note`` soon, on whatever thread; one at a time, in the order of the calls."""
        self._notes.append(note)
        while self._notes and self._pen.acquire(blocking=False):
            try:
                self._write_all()
            finally:
                self._pen.release()

    def _write_all(self) -> None:
        while self._notes:
            self._notes.popleft()()

    def read(self, look: Callable[[], T]) -> T:
        """Return what ``look`` returns once everything is written; not within a note."""
        with self._pen:
            self._write_all()
            return look()

    def note(
        self, kind: ViolationKind, what: str, frame: FrameType, other: Whereabouts | None = None
    ) -> None:
        """Write down a violation of the calling thread at ``frame``."""
        # Of a storm nobody needs the places.
        found = None if self._count > KEPT else violation(kind, what, here(frame), other)
        self.write(lambda: self.keep(found))

    def keep(self, found: Violation | None) -> None:
        """Count a violation, and keep it if it is among the first; within a note."""
        self._count += 1
        if found is not None and len(self._kept) < KEPT:
            self._kept.append(found)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The first violations, in the order in which they were seen."""
        return self.read(lambda: tuple(self._kept))

    @property
    def count(self) -> int:
        """How many violations there were."""
        return self.read(lambda: self._count)


def here(frame: FrameType) -> Whereabouts:
    """Return the calling thread, at ``frame``."""
    return Whereabouts(threading.current_thread().name, place_of(frame))


def violation(
    kind: ViolationKind, what: str, by: Whereabouts, other: Whereabouts | None
) -> Violation:
    """Return a violation that happens now."""
    return Violation(
        kind=kind, what=what, thread=by.thread, place=by.place, at=time.time(), other=other
    )

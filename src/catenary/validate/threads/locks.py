"""Locks that measure how they are waited for, and know who holds them."""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType
from typing import Protocol

import msgspec

from catenary.validate.threads.journal import Journal, Whereabouts
from catenary.validate.threads.order import LockOrder
from catenary.validate.threads.place import outside, place_of


class Lock(Protocol):
    """What ``threading.Lock`` and ``threading.RLock`` have."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...  # noqa: FBT001

    def release(self) -> None: ...


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """
    The waits for a lock at one place in the code. Seconds.

    ``thread`` waited the longest there, while ``holder`` had the lock.
    """

    place: str
    count: int
    total: float
    longest: float
    thread: str
    holder: Whereabouts | None


class Contention(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a lock was taken and waited for. Seconds.

    Attributes:
        name: The lock's.
        acquisitions: How often it was taken by a thread that did not hold it.
        waits: How many of the attempts had to wait.
        refusals: How many attempts ended without it: at once, or after a timeout.
        waited: How long all waits were together.
        longest: How long the longest was.
        by_place: Where they were, the largest total first.
    """

    name: str
    acquisitions: int
    waits: int
    refusals: int
    waited: float
    longest: float
    by_place: tuple[Waits, ...]


class MonitoredLock:
    """
    A lock in front of another one, with the same use.

    Works wherever the ``threading.Lock`` or ``RLock`` behind it does, also in a
    ``threading.Condition``. Threads that use the lock behind it directly are
    excluded as ever, and are not seen.
    """

    def __init__(self, behind: Lock, name: str, journal: Journal, order: LockOrder) -> None:
        self.behind = behind
        self.name = name
        self._journal = journal
        self._order = order
        self._owner: threading.Thread | None = None
        self._depth = 0
        self._frame: FrameType | None = None
        self._among: list[MonitoredLock] = []
        """The locks that its owner holds, itself included."""
        self._acquisitions = 0
        self._refusals = 0
        self._waits: dict[str, Waits] = {}

    def __repr__(self) -> str:
        return f"<MonitoredLock {self.name!r} {'held' if self._depth else 'free'}>"

    # What a lock does

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002
        """Take the lock, as ``threading.Lock.acquire`` does."""
        if blocking:
            self._before_waiting()
        if not self.behind.acquire(blocking=False) and not (blocking and self._wait(timeout)):
            self._journal.write(self._note_refusal)
            return False
        self._took(sys._getframe(1))
        return True

    def __enter__(self) -> bool:
        self._before_waiting()
        if not self.behind.acquire(blocking=False):
            self._wait(-1)
        self._took(sys._getframe(1))
        return True

    def release(self) -> None:
        """Give the lock back; raises what the lock behind raises."""
        if self._depth:
            self._depth -= 1
            if not self._depth:
                self._forget()
        self.behind.release()

    def __exit__(self, *error: object) -> None:
        self.release()

    def locked(self) -> bool:
        """Whether a thread holds it that took it through here."""
        return self._depth > 0

    @property
    def is_held(self) -> bool:
        """Whether the calling thread holds it."""
        asked = getattr(self.behind, "_is_owned", None)
        if asked is not None:
            # An RLock knows also those who took it before this one stood in front.
            return bool(asked())
        return self._owner is threading.current_thread()

    # What threading.Condition asks of a lock

    def _is_owned(self) -> bool:
        return self.is_held

    def _release_save(self) -> int:
        depth = self._depth
        for _ in range(depth):
            self.release()
        return depth

    def _acquire_restore(self, depth: int) -> None:
        for _ in range(depth):
            self.acquire()

    # Who has it. A finalizer may take the lock and give it back between any two of these
    # lines: it counts up and down again, and leaves everything as it was.

    def _took(self, frame: FrameType) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self._acquisitions += 1
        self._frame = outside(frame)
        self._among = self._order.held
        self._among.append(self)
        self._owner = threading.current_thread()

    def _forget(self) -> None:
        self._owner = None
        self._frame = None
        if self in self._among:
            self._among.remove(self)

    def holder(self) -> Whereabouts | None:
        """Return who holds it and where that thread is now; None if that is not known."""
        owner, frame = self._owner, self._frame
        if owner is None or frame is None:
            return None
        return Whereabouts(owner.name, place_of(frame))

    # Contention

    def _before_waiting(self) -> None:
        if self._order.held and self._owner is not threading.current_thread():
            self._order.before_taking(self)

    def _wait(self, timeout: float) -> bool:
        holder, place = self.holder(), place_of(sys._getframe())
        began = time.perf_counter()
        is_taken = self.behind.acquire(timeout=timeout)
        seconds, thread = time.perf_counter() - began, threading.current_thread().name
        self._journal.write(lambda: self._note_wait(seconds, thread, place, holder))
        return is_taken

    # Within notes of the journal

    def _note_refusal(self) -> None:
        self._refusals += 1

    def _note_wait(
        self, seconds: float, thread: str, place: str, holder: Whereabouts | None
    ) -> None:
        known = self._waits.get(place)
        longest = seconds
        if known is not None and known.longest >= seconds:
            longest, thread, holder = known.longest, known.thread, known.holder
        self._waits[place] = Waits(
            place=place,
            count=(known.count if known else 0) + 1,
            total=(known.total if known else 0.0) + seconds,
            longest=longest,
            thread=thread,
            holder=holder,
        )

    def contention(self) -> Contention:
        """Return how it was taken and waited for so far."""
        return self._journal.read(self._contention)

    def _contention(self) -> Contention:
        waits = sorted(self._waits.values(), key=lambda each: -each.total)
        return Contention(
            name=self.name,
            acquisitions=self._acquisitions,
            waits=sum(each.count for each in waits),
            refusals=self._refusals,
            waited=sum(each.total for each in waits),
            longest=max((each.longest for each in waits), default=0.0),
            by_place=tuple(waits),
        )

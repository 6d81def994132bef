"""The order in which threads take locks, and where it can end in a deadlock."""

from __future__ import annotations

import functools
import sys
import threading
from typing import TYPE_CHECKING

from catenary.validate.threads.journal import (
    Journal,
    ViolationKind,
    Whereabouts,
    here,
    violation,
)

if TYPE_CHECKING:
    from catenary.validate.threads.locks import MonitoredLock


class _Held(threading.local):
    """The locks that a thread holds, in the order in which it took them."""

    def __init__(self) -> None:
        self.locks: list[MonitoredLock] = []


class LockOrder:
    """
    Which lock was taken while which other one was held.

    Two orders that contradict each other can end in a deadlock, so they are
    reported when the second one is seen, whether or not threads met there
    (the idea is that of the Linux kernel's lockdep). A circle of more than two
    locks counts as well. Each pair is looked at once.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._held = _Held()
        self._first: dict[MonitoredLock, dict[MonitoredLock, Whereabouts]] = {}
        """By a lock that was held, those that were taken then, and who did it first."""

    @property
    def held(self) -> list[MonitoredLock]:
        """The locks of the calling thread."""
        return self._held.locks

    def before_taking(self, lock: MonitoredLock) -> None:
        """The calling thread is about to wait for a lock that it does not hold."""
        for held in self._held.locks:
            if lock not in self._first.get(held, ()):
                by = here(sys._getframe())
                self._journal.write(functools.partial(self._learn, held, lock, by))

    def _learn(self, held: MonitoredLock, lock: MonitoredLock, by: Whereabouts) -> None:
        """Learn that a lock was taken while another one was held; within a note."""
        known = self._first.setdefault(held, {})
        if lock in known:
            return
        known[lock] = by
        back = self._path(lock, held)
        if back:
            elsewhere = " then ".join(other.name for other in back)
            what = f"{held.name} then {lock.name}, elsewhere {elsewhere}"
            begin = self._first[back[0]][back[1]]
            self._journal.keep(violation(ViolationKind.LOCK_ORDER, what, by, begin))

    def _path(self, begin: MonitoredLock, end: MonitoredLock) -> list[MonitoredLock]:
        """Return the locks through which ``end`` was taken after ``begin``; empty if it was not."""
        paths = [[begin]]
        seen = {begin}
        while paths:
            path = paths.pop()
            for following in self._first.get(path[-1], ()):
                if following is end:
                    return [*path, following]
                if following not in seen:
                    seen.add(following)
                    paths.append([*path, following])
        return []

"""The monitor of threads: what users and the campaigns hold."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar, cast

from catenary.validate.threads.bridge import watching
from catenary.validate.threads.journal import (
    Journal,
    ThreadViolations,
    Violation,
    ViolationKind,
    Whereabouts,
)
from catenary.validate.threads.locks import Contention, Lock, MonitoredLock
from catenary.validate.threads.order import LockOrder
from catenary.validate.threads.place import place_of
from catenary.validate.threads.sections import Section, Sections
from catenary.validate.threads.watched import Report, Watched, watched_function

if TYPE_CHECKING:
    from catenary.factory import WebSocketBridgeFactory

T = TypeVar("T")
Owner = threading.Thread | asyncio.AbstractEventLoop


class ThreadMonitor:
    """
    Finds what threads do to each other in code that is put under its eyes.

    It holds nobody back and changes no outcome: it writes down each broken rule
    with the thread, the place and the time, and how locks are waited for. Look
    at :attr:`violations` and :meth:`contention`, or let :meth:`check` raise.
    Thread-safe; what it watches may be used in finalizers and signal handlers
    too, but do not ask it there. What it costs is in
    docs/how-to/test-your-agents.md.
    """

    def __init__(self) -> None:
        self._journal = Journal()
        self._order = LockOrder(self._journal)
        self._locks: list[MonitoredLock] = []
        self._sections = Sections(self._journal)

    # Putting things under its eyes

    def lock(self, lock: Lock, name: str) -> MonitoredLock:
        """
        Return a lock in front of ``lock`` (a ``Lock`` or ``RLock``), to be used in its place.

        It measures how it is waited for, and its order among the other locks
        of this monitor: two orders that can end in a deadlock are a violation,
        whether or not they met.
        """
        monitored = MonitoredLock(lock, name, self._journal, self._order)
        self._locks.append(monitored)
        return monitored

    def guarded(self, watched: T, *, by: MonitoredLock, name: str | None = None) -> T:
        """
        Return ``watched`` so that its use without the lock ``by`` is a violation.

        A function may only be called with the lock held; of an object, methods
        may only be called and attributes and items only be set. Reading is
        free. What an object holds is not watched with it.
        """
        shown = name or _name_of(watched)
        return self._watched(watched, shown, changed=functools.partial(self.expect_held, by))

    def confined(
        self, watched: T, *, to: Owner, name: str | None = None, free: Collection[str] = ()
    ) -> T:
        """
        Return ``watched`` so that its use on another thread than its owner's is a violation.

        ``to`` is a thread, or a loop: then it belongs to the thread that runs
        the loop, and to anyone while none does. Reading counts too, but for
        the attributes and methods named in ``free``.
        """
        expect = functools.partial(self.expect_on, to)
        shown = name or _name_of(watched)
        return self._watched(watched, shown, changed=expect, looked=expect, free=free)

    def _watched(
        self,
        watched: T,
        name: str,
        *,
        changed: Report,
        looked: Report = lambda _: None,
        free: Collection[str] = (),
    ) -> T:
        if inspect.isroutine(watched):
            return cast("T", watched_function(watched, changed, name))
        proxy = Watched(watched, name, looked=looked, changed=changed, free=frozenset(free))
        return cast("T", proxy)

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager for one thread at a time; those of one name are one."""
        return Section(name, self._sections)

    def watching(self, factory: WebSocketBridgeFactory) -> AbstractContextManager[None]:
        """
        Watch a bridge that may be at work, for the time of a ``with`` block.

        Its log's lock is measured (as ``step of <url>``); its logs and their
        tails may only be changed under that lock; each of its connections may
        only be pumped, closed and changed on the thread of its loop. After the
        block the bridge is as it was.

        Raises:
            UsageError: If the bridge, or another one with the same log, is watched already.
        """
        return watching(self, factory)

    # Saying what must hold

    def expect_held(self, lock: MonitoredLock, what: str) -> None:
        """Note a violation unless the calling thread holds a lock."""
        if not lock.is_held:
            text = f"{what} without {lock.name}"
            self._journal.note(ViolationKind.UNGUARDED, text, sys._getframe(), lock.holder())

    def expect_on(self, owner: Owner, what: str) -> None:
        """Note a violation unless this is the owner's thread; see :meth:`confined`."""
        if isinstance(owner, threading.Thread):
            if owner is not threading.current_thread():
                frame = sys._current_frames().get(owner.ident or 0)
                other = Whereabouts(owner.name, place_of(frame))
                self._journal.note(ViolationKind.FOREIGN_THREAD, what, sys._getframe(), other)
        elif owner is not asyncio._get_running_loop() and owner.is_running():
            self._journal.note(ViolationKind.FOREIGN_THREAD, what, sys._getframe())

    # What it saw

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The violations in the order in which they were seen, at most the first 1,000."""
        return self._journal.violations

    @property
    def violation_count(self) -> int:
        """How many violations there were."""
        return self._journal.count

    def contention(self) -> tuple[Contention, ...]:
        """Return how each lock was taken and waited for, the one most waited for first."""
        found = [lock.contention() for lock in list(self._locks)]
        return tuple(sorted(found, key=lambda each: -each.waited))

    def check(self) -> None:
        """
        Do nothing if no rule was broken.

        Raises:
            ThreadViolations: With everything that was.
        """
        count = self.violation_count
        if count:
            raise ThreadViolations(self.violations, count)


def _name_of(watched: object) -> str:
    return getattr(watched, "__qualname__", None) or f"a {type(watched).__name__}"

"""The processes that share a log: who is connected to any of them, and questions to all."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from typing import Protocol


class Answerer(Protocol):
    """Someone in this process who answers questions that any process may ask."""

    def answer(self, question: bytes) -> bytes | None:
        """
        Answer, or return None with nothing to say.

        Called on any thread; it is short, and does not block.
        """
        ...

    def crowded(self, user_id: str, connections: int) -> None:
        """
        Hear how many connections a user of this process has to all of them.

        Called on any thread, when one has come here and others are elsewhere. One
        that came or went a moment ago may be missing.
        """
        ...


class Nodes:
    """
    The one process of a log that nobody else has.

    A log that many processes share has a subclass that knows the others. All
    methods are thread-safe.
    """

    def __init__(self) -> None:
        self._present: Counter[str] = Counter()
        self._presence_lock = threading.Lock()
        self.answerers: weakref.WeakSet[Answerer] = weakref.WeakSet()

    def arrived(self, user_id: str) -> None:
        """A user has a connection here; each call is undone by one of :meth:`left`."""
        with self._presence_lock:
            self._present[user_id] += 1
        self._count_changed(user_id)

    def left(self, user_id: str) -> None:
        """One connection of a user is gone."""
        with self._presence_lock:
            self._present[user_id] -= 1
            if self._present[user_id] <= 0:
                del self._present[user_id]
        self._count_changed(user_id)

    def _count_changed(self, user_id: str) -> None:
        """A user has more connections here than before, or fewer."""

    def _crowded(self, user_id: str, elsewhere: int) -> None:
        """Say how many connections a user has, of which so many are to other processes."""
        here = self._present.get(user_id, 0)
        if here and elsewhere:
            for answerer in list(self.answerers):
                answerer.crowded(user_id, here + elsewhere)

    def is_here(self, user_id: str) -> bool:
        """Whether a user has a connection to this process."""
        return user_id in self._present

    async def is_present(self, user_id: str) -> bool:
        """Whether a user has a connection to any process."""
        return self.is_here(user_id)

    def answers(self, question: bytes) -> list[bytes]:
        """Return what this process answers."""
        found = [answerer.answer(question) for answerer in list(self.answerers)]
        return [answer for answer in found if answer is not None]

    async def ask(self, question: bytes, *, timeout: float = 1.0) -> list[bytes]:
        """
        Return what the processes answer, this one's first.

        Those that have not answered after ``timeout`` seconds are left out.
        """
        return self.answers(question)

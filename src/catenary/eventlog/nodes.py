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
            is_first = self._present[user_id] == 1
        if is_first:
            self._presence_changed(user_id)

    def left(self, user_id: str) -> None:
        """One connection of a user is gone."""
        with self._presence_lock:
            self._present[user_id] -= 1
            is_last = self._present[user_id] <= 0
            if is_last:
                del self._present[user_id]
        if is_last:
            self._presence_changed(user_id)

    def _presence_changed(self, user_id: str) -> None:
        """A user came here, or left."""

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

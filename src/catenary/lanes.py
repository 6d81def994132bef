"""Lanes: in which order the messages of one connection are handled."""

from __future__ import annotations

import asyncio


class Lanes:
    """The messages of one connection that are at work: one lane a thread, in order."""

    __slots__ = ("last", "waiting")

    def __init__(self) -> None:
        self.last: dict[str | None, asyncio.Task[None]] = {}
        self.waiting = 0

    def leave(self, thread_id: str | None, task: asyncio.Task[None]) -> None:
        """Take out a message that was answered."""
        self.waiting -= 1
        if self.last.get(thread_id) is task:
            del self.last[thread_id]

"""Pace: verbs that are called no faster than the log takes their events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from catenary.errors import LogFull
from catenary.eventlog.receipt import Receipt, settled

AHEAD = 256
"""After how many events the log must have them all."""

ROOM_SECONDS = 0.05
"""How long a log is left alone that others have filled."""

T = TypeVar("T")


class Pace:
    """
    The pace of one speaker, who waits where a verb would raise ``LogFull``.

    It holds no events: who waits has not spoken. It may be used on several
    loops at a time.
    """

    def __init__(self) -> None:
        self._said = 0
        self._last: Receipt | None = None

    async def call(self, verb: Callable[..., Receipt], *args: Any, **kwargs: Any) -> None:
        """
        Call a verb once the log has room for its event; raise what it raises but ``LogFull``.

        Every :data:`AHEAD` events it returns when the log has committed them all.
        """
        self._last = receipt = await self.with_room(lambda: verb(*args, **kwargs))
        self._said += 1
        if self._said % AHEAD == 0:
            await receipt

    async def with_room(self, act: Callable[[], T]) -> T:
        """Return what ``act`` does, which emits, once the log has room for that."""
        while True:
            try:
                return act()
            except LogFull:
                await self._room()

    async def _room(self) -> None:
        """Wait until the log has what was said last; where it has, others have filled it."""
        if self._last is None or self._last.is_settled:
            await asyncio.sleep(ROOM_SECONDS)
        else:
            await settled((self._last,), None)

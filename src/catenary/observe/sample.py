"""Which connections are looked at closely: a few, and after a while others."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from catenary.observe.tap import CloseLook

if TYPE_CHECKING:
    from catenary.manager import WebSocketManager


class Sample:
    """At most ``size`` connections of a manager, chosen by chance, each for ``time`` seconds."""

    def __init__(self, manager: WebSocketManager, *, size: int, time: float) -> None:
        self._manager = manager
        self._size = size
        self._time = time
        self.looks: list[CloseLook] = []

    def renew(self, now: float) -> None:
        """Let those go whose time is over or that are gone, and choose others in their place."""
        kept = []
        for look in self.looks:
            if look.connection is not None and now - look.since < self._time:
                kept.append(look)
            else:
                look.end()
        self.looks = kept
        missing = self._size - len(kept)
        if missing <= 0:
            return
        known = {look.connection for look in kept}
        others = [
            connection
            for connection in self._manager.open_connections()
            if connection.stream is not None and connection not in known
        ]
        for connection in random.sample(others, min(missing, len(others))):
            look = CloseLook(connection, since=now)
            self.looks.append(look)
            look.begin()

    def end(self) -> None:
        """Look at none any more."""
        looks, self.looks = self.looks, []
        for look in looks:
            look.end()

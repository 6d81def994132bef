"""Waiting until a client has acknowledged a place."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Protocol

from catenary.eventlog.receipt import Receipt, wake
from catenary.position import Position


class SeenStore(Protocol):
    """Where acknowledged places are kept."""

    async def seen(self, log_id: str) -> Position | None: ...


class SeenWatch:
    """Who waits in this process for which acknowledgement."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, list[tuple[Position, Receipt]]] = defaultdict(list)

    def tell(self, log_id: str, place: Position) -> None:
        """Wake those who wait for ``place`` or for one before it."""
        waiting = self._waiting.get(log_id)
        if not waiting:
            return
        reached = [
            item for item in waiting if item[0].epoch == place.epoch and item[0].seq <= place.seq
        ]
        for item in reached:
            waiting.remove(item)
            item[1].commit(*place)
        wake(receipt for _, receipt in reached)

    async def wait(
        self, store: SeenStore, log_id: str, place: Position, timeout: float | None
    ) -> bool:
        """Wait for an acknowledgement of ``place``; False after ``timeout`` seconds."""
        item = (place, Receipt())
        self._waiting[log_id].append(item)
        try:
            known = await store.seen(log_id)
            if known is not None and known.epoch == place.epoch and known.seq >= place.seq:
                return True
            async with asyncio.timeout(timeout):
                await item[1]
        except TimeoutError:
            return False
        finally:
            waiting = self._waiting[log_id]
            if item in waiting:
                waiting.remove(item)
            if not waiting:
                del self._waiting[log_id]
        return True

"""Waiting until a client has acknowledged a place."""

from __future__ import annotations

import asyncio
import threading
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
        self._lock = threading.Lock()

    def tell(self, log_id: str, place: Position) -> None:
        """Wake those who wait for ``place`` or for one before it."""
        with self._lock:
            waiting = self._waiting.get(log_id, ())
            reached = [
                receipt
                for wanted, receipt in waiting
                if wanted.epoch == place.epoch and wanted.seq <= place.seq
            ]
        for receipt in reached:
            receipt.commit(*place)
        wake(reached)

    async def wait(
        self, store: SeenStore, log_id: str, place: Position, timeout: float | None
    ) -> bool:
        """Wait for an acknowledgement of ``place``; False after ``timeout`` seconds."""
        item = (place, Receipt())
        with self._lock:
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
            with self._lock:
                self._waiting[log_id].remove(item)
                if not self._waiting[log_id]:
                    del self._waiting[log_id]
        return True

"""A watcher that one task waits for."""

from __future__ import annotations

import threading

from catenary.eventlog.receipt import Receipt, wake


class Signal:
    """
    Wakes one task, on whatever loop, when its stream has new records.

    Set ``is_awake`` to False before reading, so that what is committed
    meanwhile wakes again.
    """

    def __init__(self) -> None:
        self.is_awake = False
        self._lock = threading.Lock()
        self._receipt = Receipt()

    def wake(self) -> None:
        """Let :meth:`wait` return. Called on any thread."""
        with self._lock:
            self.is_awake = True
            receipt, self._receipt = self._receipt, Receipt()
        receipt.commit("", 1)
        wake((receipt,))

    async def wait(self) -> None:
        """Wait for the next wake-up; return at once if there was one."""
        with self._lock:
            receipt = self._receipt
            if self.is_awake:
                return
        await receipt

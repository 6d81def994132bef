"""Values that expire, in memory: tickets and the like."""

from __future__ import annotations

from collections.abc import Callable

ENTRIES_LIMIT = 100_000


class ExpiringTable:
    """
    Values with a time to live, at most :data:`ENTRIES_LIMIT`; the oldest go first.

    Not thread-safe: the log's lock guards it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._values: dict[str, tuple[bytes, float]] = {}

    def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value for ``ttl`` seconds."""
        if len(self._values) >= ENTRIES_LIMIT:
            self.sweep()
        while len(self._values) >= ENTRIES_LIMIT:
            self._values.pop(next(iter(self._values)))
        self._values[key] = (value, self._clock() + ttl)

    def get(self, key: str) -> bytes | None:
        """Return a value that has not expired."""
        value, expires = self._values.get(key, (b"", 0.0))
        return value if expires > self._clock() else None

    def take(self, key: str) -> bytes | None:
        """Return a value that has not expired, and remove it."""
        value, expires = self._values.pop(key, (b"", 0.0))
        return value if expires > self._clock() else None

    def sweep(self) -> None:
        """Drop what has expired."""
        now = self._clock()
        for key in [key for key, (_, expires) in self._values.items() if expires <= now]:
            self._values.pop(key, None)

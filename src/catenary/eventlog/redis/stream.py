"""A log in Redis, as this process knows it."""

from __future__ import annotations

from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.reading import LogAt
from catenary.eventlog.shared.stream import SharedStream


class RedisStream(SharedStream):
    """A shared stream with the names of its keys."""

    __slots__ = ("bucket", "names")

    def __init__(self, log_id: str, keys: Keys) -> None:
        super().__init__(log_id)
        self.names = keys.of_log(log_id)
        self.bucket = keys.bucket_of(log_id)

    def at(self, now: str) -> LogAt:
        """Return what reading it needs; ``now`` is empty for the store's own clock."""
        return LogAt(self.bucket, self.names, now)

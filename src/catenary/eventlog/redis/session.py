"""What the writer's thread does at a time in Redis."""

from __future__ import annotations

from collections.abc import Sequence

from catenary.eventlog.committer.group import Outcome
from catenary.eventlog.entry import Entry
from catenary.eventlog.redis.appending import Appending, append_all
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.shared.session import SharedSession


class Session(SharedSession[Store, RedisStream]):
    """The writer's store, for one work."""

    def __init__(
        self, store: Store, keys: Keys, outcome: Outcome, *, holder: str, now: str
    ) -> None:
        super().__init__(store, outcome, holder=holder)
        self.keys = keys
        self.now = now

    def _append(self, stream: RedisStream, entries: Sequence[Entry]) -> Appending:
        appending = Appending(stream, entries, 0, self.holder)
        append_all(self.store, self.keys, [appending], producer=self.holder, now=self.now)
        return appending

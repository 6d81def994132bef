"""What the writer's thread does at a time: works on the store, and what follows in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from catenary.eventlog.committer.group import Outcome
from catenary.eventlog.entry import Entry
from catenary.eventlog.redis.appending import Appending, append_all
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stream import RedisStream


class Session:
    """The writer's store, for one work."""

    def __init__(
        self, store: Store, keys: Keys, outcome: Outcome, *, holder: str, now: str
    ) -> None:
        self.store = store
        self.keys = keys
        self.outcome = outcome
        self.holder = holder
        self.now = now

    def then(self, effect: Callable[[], None]) -> None:
        """Let something happen in memory afterwards, under the log's lock."""
        self.outcome.effects.append(effect)

    def append(self, stream: RedisStream, entries: Sequence[Entry]) -> bool:
        """Append entries of a run that this process holds in the store; False if it does not."""
        appending = Appending(stream, entries, 0, self.holder)
        append_all(self.store, self.keys, [appending], producer=self.holder, now=self.now)
        if appending.refused:
            return False
        appending.tell(self.outcome)
        return True

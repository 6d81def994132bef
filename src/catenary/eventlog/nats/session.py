"""What the writer's thread does at a time: works on the store, and what follows in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from catenary.eventlog.committer.group import Outcome
from catenary.eventlog.entry import Entry
from catenary.eventlog.nats.appending import Appending, append_all
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream


class Session:
    """The writer's store, for one work; ``at`` is the time in ms since 1970."""

    def __init__(self, store: Store, outcome: Outcome, *, holder: str, at: int) -> None:
        self.store = store
        self.outcome = outcome
        self.holder = holder
        self.at = at

    def then(self, effect: Callable[[], None]) -> None:
        """Let something happen in memory afterwards, under the log's lock."""
        self.outcome.effects.append(effect)

    def append(self, stream: NatsStream, entries: Sequence[Entry]) -> bool:
        """Append entries of a run that this process holds in the store; False if it does not."""
        appending = Appending(stream, entries, 0, self.holder)
        append_all(self.store, [appending], producer=self.holder, at=self.at)
        if appending.refused:
            return False
        appending.tell(self.outcome)
        return True

"""What the writer's thread does at a time in JetStream."""

from __future__ import annotations

from collections.abc import Sequence

from catenary.eventlog.committer.group import Outcome
from catenary.eventlog.entry import Entry
from catenary.eventlog.nats.appending import Appending, append_all
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.shared.session import SharedSession


class Session(SharedSession[Store, NatsStream]):
    """The writer's store, for one work; ``at`` is the time in ms since 1970."""

    def __init__(self, store: Store, outcome: Outcome, *, holder: str, at: int) -> None:
        super().__init__(store, outcome, holder=holder)
        self.at = at

    def _append(self, stream: NatsStream, entries: Sequence[Entry]) -> Appending:
        appending = Appending(stream, entries, 0, self.holder)
        append_all(self.store, [appending], producer=self.holder, at=self.at)
        return appending

"""What a shared log's writer does at a time: works on the store, and what follows in memory."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from catenary.eventlog.committer.group import Outcome
from catenary.eventlog.entry import Entry
from catenary.eventlog.shared.appending import SharedAppending
from catenary.eventlog.shared.callers import S
from catenary.eventlog.shared.stream import SharedStream

L = TypeVar("L", bound=SharedStream)


class SharedSession(abc.ABC, Generic[S, L]):
    """The writer's store, for one work. A subclass brings the way into it."""

    def __init__(self, store: S, outcome: Outcome, *, holder: str) -> None:
        self.store = store
        self.outcome = outcome
        self.holder = holder

    def then(self, effect: Callable[[], None]) -> None:
        """Let something happen in memory afterwards, under the log's lock."""
        self.outcome.effects.append(effect)

    def append(self, stream: L, entries: Sequence[Entry]) -> bool:
        """Append entries of a run that this process holds in the store; False if it does not."""
        appending = self._append(stream, entries)
        if appending.refused:
            return False
        appending.tell(self.outcome)
        return True

    @abc.abstractmethod
    def _append(self, stream: L, entries: Sequence[Entry]) -> SharedAppending:
        """Append entries, and return what became of them. Raises ``LogError``."""

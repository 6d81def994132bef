"""What a writer commits at once: batches of entries, and works."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from catenary.eventlog.committer.stream import CommitStream
from catenary.eventlog.entry import Entry
from catenary.position import Position
from catenary.record import Record

T = TypeVar("T")


class Batch(NamedTuple):
    """
    All that waited in one log when its writer came by.

    ``number`` rises with each batch of a producer, so that a store can tell a
    batch that it has from one that it has not.
    """

    stream: CommitStream
    entries: list[Entry]
    size_bytes: int
    number: int


class Work(Generic[T]):
    """
    Something else that only the writer may do: a claim, an erasure, upkeep.

    ``act`` gets the store's transaction. It may run more than once, so what it
    changes in memory it leaves to the transaction's effects. ``streams`` are
    loaded before it runs.
    """

    __slots__ = ("act", "future", "streams")

    def __init__(self, act: Callable[[Any], T], streams: Sequence[CommitStream] = ()) -> None:
        self.act = act
        self.streams = streams
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.future.set_running_or_notify_cancel()


class Group(NamedTuple):
    """What is committed at once."""

    batches: list[Batch]
    works: list[Work[Any]]

    def streams(self) -> list[CommitStream]:
        """Return the streams that take part."""
        found = [batch.stream for batch in self.batches]
        found.extend(stream for work in self.works for stream in work.streams)
        return found


class Outcome:
    """
    What a store did with a group.

    The effects are what must change in memory once the store has committed;
    they run under the log's lock, after the records were published.
    """

    __slots__ = ("appended", "effects", "refused", "repeated", "results")

    def __init__(self) -> None:
        self.appended: list[tuple[CommitStream, Entry, Record]] = []
        self.repeated: list[tuple[CommitStream, Entry, Position]] = []
        self.refused: list[tuple[CommitStream, Entry, Exception]] = []
        self.results: list[tuple[Work[Any], Any]] = []
        self.effects: list[Callable[[], None]] = []

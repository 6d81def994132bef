"""A stream of a log that other processes append to as well."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from catenary.eventlog.committer.stream import CommitStream
from catenary.eventlog.tail import Tail
from catenary.position import Position
from catenary.record import Record

FORMER_REMEMBERED = 8


class SharedStream(CommitStream):
    """
    One log, as this process knows it, that is written by many.

    What this process commits and what it hears of others' commits come on two
    ways. Each record is shown to the readers here once, in order: what comes
    early on one way is left to the other. Readers that miss something go to
    the log. Guarded by the log's lock.
    """

    __slots__ = ("_former", "seen", "wanting")

    def __init__(self, log_id: str) -> None:
        super().__init__(log_id)
        self.wanting = 0
        """How many watch it, or are about to: for so many its live channel is heard."""
        self.seen: Position | None = None
        self._former: deque[str] = deque(maxlen=FORMER_REMEMBERED)

    def publish(self, record: Record) -> None:
        """Show a record that this process committed, unless others' must come before it."""
        if not self._enter(record.epoch, record.first_seq - 1):
            return
        if record.first_seq == self.head + 1:
            super().publish(record)
        elif self.tail is None and record.seq > self.head:
            self.head = record.seq

    def hear(self, records: Iterable[Record]) -> None:
        """Show records that came over the live channel, which has its log's order."""
        for record in records:
            if not self._enter(record.epoch, record.first_seq - 1) or record.seq <= self.head:
                continue
            if record.first_seq != self.head + 1:
                self._skip(record.first_seq - 1)
            super().publish(record)

    def has(self, epoch: str, seq: int) -> bool:
        """Whether a record was shown already, or is of a term that has ended."""
        return (epoch == self.epoch and seq <= self.head) or epoch in self._former

    def settle(self, epoch: str, head: int) -> None:
        """Take over the head that the store told: readers go to the log for what lies before."""
        if self._enter(epoch, head) and head > self.head:
            self._skip(head)

    def _enter(self, epoch: str, before: int) -> bool:
        """Be in a term; False if it has ended, so that what is told of it is late."""
        if epoch == self.epoch:
            return True
        if epoch in self._former:
            return False
        if self.epoch:
            self._former.append(self.epoch)
        self.head = before
        self.is_loaded = True
        self.begin_term(epoch)
        return True

    def _skip(self, head: int) -> None:
        self.head = head
        if self.tail is not None:
            self.tail = Tail(head + 1)
            for watcher in self.watchers:
                watcher.wake()

"""What was said in a simulated world, and what became of it: the truth that readers are held to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from catenary.errors import CatenaryError
from catenary.eventlog.receipt import Receipt
from catenary.position import Position


class Said(msgspec.Struct):
    """One event that a producer emitted, and its place once that is known."""

    log_id: str
    thread_id: str | None
    run_id: str | None
    marker: str
    text: str | None
    """The text of a delta, to the letter."""
    receipt: Receipt
    life: int
    """Which of the logs of this world it was given to; a log in memory ends with its process."""
    at: float
    """When, in virtual seconds."""
    size_bytes: int
    position: Position | None = None
    failure: CatenaryError | None = None

    @property
    def seq(self) -> int:
        """Its number, once that is known; else 0."""
        return self.position.seq if self.position is not None else 0


class Asked(NamedTuple):
    """A message of a client, as long as its log remembers it."""

    life: int
    forgotten: int
    log_id: str
    message_id: str


class Ledger:
    """What producers said and were told, and what the bridge's handlers were asked."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.said: list[Said] = []
        self.life = 0
        self.epochs: defaultdict[str, set[str]] = defaultdict(set)
        """By log: the epochs that were seen in this life."""
        self.life_of: dict[str, int] = {}
        """By epoch that was seen: the life of the log that it belongs to."""
        self.repeats: list[tuple[Receipt, Receipt]] = []
        """The receipts of events that were emitted again with their idempotency key."""
        self.erased_through: dict[tuple[str, str | None], int] = {}
        """By log and thread: how far the log went when it was erased; None: all of it."""
        self.started: Counter[Asked] = Counter()
        """How often the handler of a message was started."""
        self.replies: dict[Asked, Any] = {}
        self.answers: list[tuple[str, str, object]] = []
        """Log, id and outcome of every message that was answered."""
        self.was_disturbed = False
        """Whether a server ended, or its log was away, so that messages may have failed."""
        self._forgotten: Counter[str] = Counter()
        """By log: how often all of it was erased, and with it what is known of messages."""
        self._markers = 0
        self._unsettled: list[Said] = []

    def marker(self) -> str:
        """Return a word that no other event has."""
        self._markers += 1
        return f"m{self._markers}"

    def say(
        self,
        receipt: Receipt,
        marker: str,
        *,
        log_id: str,
        thread_id: str | None,
        run_id: str | None = None,
        text: str | None = None,
        size_bytes: int = 300,
    ) -> None:
        """Note what a producer emitted."""
        said = Said(
            log_id, thread_id, run_id, marker, text, receipt, self.life, self.now(), size_bytes
        )
        self.said.append(said)
        self._unsettled.append(said)

    def settle(self) -> None:
        """Note what the receipts say by now."""
        waiting = []
        for said in self._unsettled:
            if not said.receipt.is_settled:
                waiting.append(said)
                continue
            try:
                said.position = said.receipt._outcome()
                if said.life == self.life:
                    self.note_epoch(said.log_id, said.position.epoch)
            except CatenaryError as failure:
                said.failure = failure
        self._unsettled = waiting

    def committed_in(self, log_id: str) -> Iterator[Said]:
        """Yield what stands in a log of this life, the latest first."""
        for said in reversed(self.said):
            if said.log_id == log_id and said.life == self.life and said.position is not None:
                yield said

    @property
    def unsettled(self) -> int:
        """How many events there are of which no producer knows the outcome yet."""
        return len(self._unsettled)

    def note_epoch(self, log_id: str, epoch: str) -> None:
        """Note that a log has, or had, this term."""
        if epoch:
            self.epochs[log_id].add(epoch)
            self.life_of[epoch] = self.life

    def asked(self, log_id: str, message_id: str) -> Asked:
        """Return the name of a message that a handler is asked now."""
        return Asked(self.life, self._forgotten[log_id], log_id, message_id)

    def note_erasure(self, log_id: str, thread_id: str | None, through: int) -> None:
        """Note that a thread, or all of a log, is erased about now; once before and once after."""
        self.erased_through[log_id, thread_id] = through
        if thread_id is None:
            self._forgotten[log_id] += 1

    def end_process(self) -> None:
        """What the producers of a process were not told by now they never will be."""
        self.was_disturbed = True
        self.settle()
        self._unsettled.clear()

    def begin_life(self) -> None:
        """Another log takes the place of one that ended with its process."""
        self.life += 1
        self.epochs.clear()
        self.erased_through.clear()

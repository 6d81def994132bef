"""A log in JetStream, as this process knows it."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from catenary.eventlog.nats.names import LogNames
from catenary.eventlog.nats.state import Known
from catenary.eventlog.shared.runs import RunStart
from catenary.eventlog.shared.stream import SharedStream

PLACES_REMEMBERED = 64


class Remembered(NamedTuple):
    """What a process knew to be in the store: a last message, and what was written here."""

    known: Known | None
    wrote: dict[str, tuple[int, str]]

    def has_more_than(self, known: Known) -> bool:
        """Whether what the store answers lacks something of it."""
        state = known.state
        former = self.known.state if self.known is not None else None
        if former is not None and former.epoch == state.epoch and state.head < former.head:
            return True
        return any(
            epoch == state.epoch and state.lacks(producer, number)
            for producer, (number, epoch) in self.wrote.items()
        )


class NatsStream(SharedStream):
    """
    A shared stream with its subjects, and its last message as it was last seen.

    What it knows may be behind; whoever writes by it finds out, for nothing is
    stored then.
    """

    __slots__ = (
        "erasures",
        "is_lost",
        "known",
        "looked_through",
        "names",
        "places",
        "seen_seq",
        "starts",
        "wrote",
    )

    def __init__(self, log_id: str, names: LogNames) -> None:
        super().__init__(log_id)
        self.names = names
        self.known: Known | None = None
        self.seen_seq = 0
        """Where in the stream the last message is that somebody here saw."""
        self.erasures: int | None = None
        """How often something was erased, as far as is known here."""
        self.looked_through = 0
        """Through which number this process has looked for what can be merged."""
        self.is_lost = False
        """Whether the store has less than it had: the next message begins a new term."""
        self.wrote: dict[str, tuple[int, str]] = {}
        """The number and term of the last batch that is known to be stored, by producer."""
        self.starts: dict[str, RunStart] = {}
        """What the starts of runs say that were begun or taken over here."""
        self.places: OrderedDict[int, int] = OrderedDict()
        """Where in the stream what follows some numbers is, for readers that go on."""

    def see(self, known: Known) -> None:
        """Somebody saw a last message; of two the later one counts."""
        former = self.known
        if former is None or known.seq > former.seq:
            self.known = known
        self.seen_seq = max(self.seen_seq, known.seq)

    def remembered(self) -> Remembered:
        """Return what is known here to be in the store, before it is asked."""
        return Remembered(self.known, dict(self.wrote))

    def reload(self, known: Known | None, before: Remembered) -> None:
        """
        Take what the store has, and find out whether it is less than it had.

        ``before`` is what was known when the store was asked: what other threads
        have stored since then need not be in the answer.
        """
        if known is not None and before.has_more_than(known):
            self.is_lost = True
            self.known = known
        elif self.known is before.known:
            self.known = known
            if known is None:
                # Nothing is left, not even the name of the term: what comes is a new log.
                self.wrote.clear()
        if known is not None:
            self.see(known)

    def remember_place(self, number: int, seq: int) -> None:
        """Remember where what follows a number is."""
        self.places[number] = seq
        if len(self.places) > PLACES_REMEMBERED:
            self.places.popitem(last=False)

"""A log in JetStream, as this process knows it."""

from __future__ import annotations

from collections import OrderedDict

from catenary.eventlog.nats.names import LogNames
from catenary.eventlog.nats.state import Known
from catenary.eventlog.shared_runs import RunStart
from catenary.eventlog.shared_stream import SharedStream

PLACES_REMEMBERED = 64


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

    def reload(self, known: Known | None) -> None:
        """Take what the store has now, and find out whether it is less than it had."""
        former, self.known = self.known, known
        if known is not None:
            self.seen_seq = max(self.seen_seq, known.seq)
        if known is None:
            # Nothing is left, not even the name of the term: what comes is a new log.
            self.wrote.clear()
            return
        if former is not None and former.state.epoch == known.state.epoch:
            self.is_lost |= known.state.head < former.state.head
        for producer, (number, epoch) in self.wrote.items():
            told = known.state.producers.get(producer)
            if epoch == known.state.epoch and (told is None or told.number < number):
                self.is_lost = True

    def remember_place(self, number: int, seq: int) -> None:
        """Remember where what follows a number is."""
        self.places[number] = seq
        if len(self.places) > PLACES_REMEMBERED:
            self.places.popitem(last=False)

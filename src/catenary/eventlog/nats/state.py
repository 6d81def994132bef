"""
The state of one log, which its last message holds.

Each message of a log has the state that it makes, and is stored only if its
writer knew the message before it. So the state and the events change in one
step, and the last message says all that decides what may come next. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from catenary.errors import RecordCorrupt
from catenary.eventlog.batch import unpack_numbered
from catenary.eventlog.nats.marks import Mark, with_mark
from catenary.eventlog.terms import TERMS_KEPT, Term, Terms
from catenary.position import Position
from catenary.record import Record

PRODUCERS_KEPT = 32
"""So many processes that wrote last can tell whether their last batch is in the log."""


class Wrote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last batch of a producer: its number, its first event, when, and in which term."""

    number: int
    first: int
    at: int
    epoch: str


class Held(msgspec.Struct, frozen=True, array_like=True):
    """
    An open run: who holds it, its last event, its open tools.

    ``lease`` is in ms; 0 where the holder's own lease counts. ``cancel`` is when
    a cancel was asked for, why, and by whom.
    """

    holder: str
    first_seq: int
    last_seq: int
    last_at: int
    lease: int = 0
    parent: str | None = None
    tools: dict[str, tuple[str, int]] = {}
    cancel: tuple[int, str | None, str | None] | None = None


class State(msgspec.Struct, frozen=True, array_like=True):
    """
    All that decides what may come next.

    Attributes:
        head: The last number given.
        first: The first number retained.
        life: The life of the servers' memory in which it was written.
        events: How many records there were from the beginning on, merged ones as one.
        size_bytes: What these count for.
        events_gone: How many of them are retained no more.
        bytes_gone: What these count for.
        dropped: What lies before this number was taken out of the stream.
        generation: Under which name rewritten batches stand; empty if there are none.
        through: The last number that stands in a rewritten batch.
        ended: How many runs have ended since the oldest were last forgotten.
        known: How many idempotency keys were used since the oldest were last forgotten.
        erasures: How often something was erased.
        collected: How often what rewriting left over was taken out.
    """

    epoch: str
    life: str
    head: int = 0
    first: int = 1
    former: list[Term] = []
    events: int = 0
    size_bytes: int = 0
    events_gone: int = 0
    bytes_gone: int = 0
    dropped: int = 1
    generation: str = ""
    through: int = 0
    ended: int = 0
    known: int = 0
    erasures: int = 0
    runs: dict[str, Held] = {}
    producers: dict[str, Wrote] = {}
    marks: list[Mark] = []
    collected: int = 0

    @property
    def position(self) -> Position:
        """The head."""
        return Position(self.epoch, self.head)

    @property
    def terms(self) -> Terms:
        """The terms."""
        return Terms(self.epoch, self.head, self.first, list(self.former))

    @property
    def retained(self) -> tuple[int, int]:
        """How many records are retained, and what they count for in bytes."""
        return self.events - self.events_gone, self.size_bytes - self.bytes_gone

    @property
    def oldest_open(self) -> int | None:
        """Where the oldest open run began; None without one."""
        return min((held.first_seq for held in self.runs.values()), default=None)

    @property
    def rewriting(self) -> tuple[str, int, int, bool]:
        """What stays the same until somebody rewrites, or takes rewritten batches out."""
        return self.generation, self.through, self.collected, self.is_rewritten_gone

    @property
    def is_rewritten_gone(self) -> bool:
        """Whether nothing that stands in rewritten batches is retained."""
        return self.first > self.through

    @property
    def appended_marks(self) -> list[Mark]:
        """The marks of batches that stand where they were appended."""
        return [mark for mark in self.marks if mark.number > self.through]

    @property
    def end(self) -> Mark:
        """The mark behind the last batch."""
        return Mark(self.head + 1, 0, self.events, self.size_bytes)

    def in_new_term(self, epoch: str) -> State:
        """Return it with another term, which begins after the head."""
        former = [*self.former, Term(self.epoch, self.head)][-TERMS_KEPT:]
        return msgspec.structs.replace(self, epoch=epoch, former=former)

    def lacks(self, producer: str, number: int) -> bool:
        """Whether a batch that was stored is not among those of which this was made."""
        wrote = self.producers.get(producer)
        if wrote is None:
            # Of more producers than are kept this one may be left out.
            return len(self.producers) < PRODUCERS_KEPT
        return wrote.number < number

    def with_producer(self, producer: str, wrote: Wrote) -> dict[str, Wrote]:
        """Return the producers with one's last batch; those that wrote long ago go."""
        found = dict(self.producers)
        found[producer] = wrote
        if len(found) > PRODUCERS_KEPT:
            del found[min(found, key=lambda name: found[name].at)]
        return found


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """
    One message of a log: records that were committed together, or none.

    ``state`` is packed; of several messages that are stored at once only the last
    has one, and rewritten batches have none. ``erasures`` is that of the state.
    """

    epoch: str
    first: int
    last: int
    at: int
    events: int
    size_bytes: int
    body: bytes
    state: bytes = b""
    erasures: int = 0

    def records(self) -> list[Record]:
        """
        Return its records.

        Raises:
            RecordCorrupt: If they cannot be read.
        """
        if not self.events:
            return []
        where = f"the batch {self.epoch}:{self.first} to {self.last} in JetStream"
        found = unpack_numbered(
            where, self.body, epoch=self.epoch, first_seq=self.first, at=self.at
        )
        if not found or found[-1].seq != self.last:
            raise RecordCorrupt(f"{where} does not end where it says")
        return found


encode = msgspec.msgpack.Encoder().encode
_decode_batch = msgspec.msgpack.Decoder(Batch).decode
_decode_state = msgspec.msgpack.Decoder(State).decode


def batch_in(payload: bytes) -> Batch:
    """
    Return the batch that a message holds.

    Raises:
        RecordCorrupt: If it cannot be read.
    """
    try:
        return _decode_batch(payload)
    except msgspec.DecodeError as error:
        raise RecordCorrupt(
            f"a message in JetStream begins with {payload[:40]!r}, which no log wrote: {error}"
        ) from None


class Known(NamedTuple):
    """
    The last message of a log as somebody saw it.

    Where it is in the stream, the state that it holds, and of its records the
    first number, how many they are and what they count for.
    """

    seq: int
    state: State
    first: int
    events: int
    size_bytes: int

    @property
    def marks(self) -> list[Mark]:
        """The marks through this message."""
        state = self.state
        if not self.events:
            return state.marks
        before = state.events - self.events, state.size_bytes - self.size_bytes
        return with_mark(state.marks, Mark(self.first, self.seq, *before))


def known_in(seq: int, batch: Batch) -> Known:
    """
    Return what is known by the last message of a log.

    Raises:
        RecordCorrupt: If its state cannot be read.
    """
    try:
        state = _decode_state(batch.state)
    except msgspec.DecodeError as error:
        raise RecordCorrupt(
            f"the state at {batch.epoch}:{batch.last} in JetStream cannot be read: {error}"
        ) from None
    return Known(seq, state, batch.first, batch.events, batch.size_bytes)


def stated(state: State, at: int) -> Batch:
    """Return a batch without records, which only holds a state."""
    batch = Batch(state.epoch, state.head + 1, state.head, at, 0, 0, b"")
    return with_state(batch, state)


def with_state(batch: Batch, state: State) -> Batch:
    """Return a batch that holds a state."""
    return msgspec.structs.replace(batch, state=encode(state), erasures=state.erasures)

"""
Terms: the unbroken stretches of one log's numbering.

A term is named by its epoch. A new term continues at the last surviving
``seq`` + 1, so numbers only rise, and a position of a former term resumes
exactly as long as its number is not beyond that term's last one. Pure.
"""

from __future__ import annotations

import msgspec

from catenary.position import Position

TERMS_KEPT = 8


class Gap(msgspec.Struct, frozen=True):
    """
    What a reader cannot be given: the events strictly between two positions.

    ``reason`` is ``retention`` (too old), ``epoch`` (another term began) or
    ``future`` (the position is beyond what its term ever held).
    """

    after: Position
    resumes_at: Position
    reason: str

    @property
    def place(self) -> Position:
        """The reader's place after the gap: just before ``resumes_at``."""
        return Position(self.resumes_at.epoch, self.resumes_at.seq - 1)


class Term(msgspec.Struct, frozen=True, array_like=True):
    """A former term: its epoch and the last ``seq`` that it held."""

    epoch: str
    last: int


class Terms(msgspec.Struct):
    """
    The terms of one log: the current epoch, its head, and the former terms.

    ``first`` is the first ``seq`` still retained; ``head`` + 1 if none is.
    """

    epoch: str
    head: int = 0
    first: int = 1
    former: list[Term] = []

    @property
    def position(self) -> Position:
        """The head."""
        return Position(self.epoch, self.head)

    @property
    def start(self) -> Position:
        """The place before the first event retained."""
        return Position(self.epoch_of(self.first), self.first - 1)

    def begin(self, epoch: str) -> None:
        """End the current term at the head and begin another."""
        self.former = [*self.former, Term(self.epoch, self.head)][-TERMS_KEPT:]
        self.epoch = epoch

    def epoch_of(self, seq: int) -> str:
        """Return the epoch that a retained or coming ``seq`` belongs to."""
        for term in self.former:
            if seq <= term.last:
                return term.epoch
        return self.epoch

    def last_of(self, epoch: str) -> int | None:
        """Return the last ``seq`` of a term; None if the term is not known."""
        if epoch == self.epoch:
            return self.head
        # An epoch is random, so one that was used twice is a term without an event between.
        known = [term.last for term in self.former if term.epoch == epoch]
        return known[-1] if known else None

    def is_future(self, place: Position) -> bool:
        """Whether a place claims more of the current term than exists: a loss."""
        return place.epoch == self.epoch and place.seq > self.head

    def gap_after(self, place: Position) -> Gap | None:
        """Return the gap that a reader at ``place`` meets next, if there is one."""
        last = self.last_of(place.epoch)
        if last is None:
            return self._gap(place, self.first, "epoch")
        if place.seq > last:
            return self._gap(place, max(last + 1, self.first), "future")
        if place.seq + 1 < self.first:
            return self._gap(place, self.first, "retention")
        if place.seq == last and place.epoch != self.epoch:
            return self._gap(place, last + 1, "epoch")
        return None

    def _gap(self, place: Position, resumes_at: int, reason: str) -> Gap:
        return Gap(place, Position(self.epoch_of(resumes_at), resumes_at), reason)

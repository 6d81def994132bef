"""A batch on its way into a store that other processes write too: what it refuses is taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from catenary.errors import RunClosed, UsageError
from catenary.eventlog.committer.group import Outcome
from catenary.eventlog.entry import Entry
from catenary.eventlog.shared.runs import Cancel
from catenary.eventlog.shared.stream import SharedStream
from catenary.grammar import Step
from catenary.position import Position

KNOWN_RUN = "a run with this id has been before"


class Appended(NamedTuple):
    """Entries that are in the store, with the numbers from ``first`` on."""

    entries: list[Entry]
    epoch: str
    first: int
    at: int


class SharedAppending:
    """
    A batch through as many attempts as it takes.

    A subclass brings the attempts. What the store refuses is taken out, and the
    rest is tried again under the same number. ``holder`` is who must hold the
    runs that it goes on with.
    """

    def __init__(self, stream: SharedStream, entries: Sequence[Entry], holder: str) -> None:
        self.shared = stream
        self.holder = holder
        self.entries: list[Entry] = list(entries)
        """What is not in the store yet."""
        self.appended: list[Appended] = []
        self.refused: list[tuple[Entry, Exception]] = []
        self.repeated: list[tuple[Entry, Position]] = []
        self.ours_no_more: dict[str, str] = {}
        """The runs that the store says are not this holder's, and why."""
        self.cancels: dict[str, Cancel] = {}
        closed: dict[str, Exception] = dict(stream.refused)
        if closed or any(entry.key is not None for entry in self.entries):
            self._take_out(closed, {})

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to append."""
        return not self.entries

    def refuse(
        self, closed: Mapping[str, str], known: Mapping[str, tuple[bytes, Position]]
    ) -> None:
        """Take out what concerns runs that are closed, with why, and keys that were used."""
        self.ours_no_more.update(closed)
        self._take_out({run: RunClosed(run, reason) for run, reason in closed.items()}, known)

    def _take_out(
        self, closed: dict[str, Exception], known: Mapping[str, tuple[bytes, Position]]
    ) -> None:
        left: list[Entry] = []
        first_of: dict[str, Entry] = {}
        broken = {
            entry.whole: closed[entry.run_id]
            for entry in self.entries
            if entry.whole and entry.step is not Step.ASIDE and entry.run_id in closed
        }
        for entry in self.entries:
            of_run = entry.run_id if entry.step is not Step.ASIDE else None
            if entry.key is not None and entry.key in known:
                self._take_known(entry, *known[entry.key], closed)
            elif of_run is not None and of_run in closed:
                self.refused.append((entry, closed[of_run]))
            elif entry.whole in broken:
                self.refused.append((entry, broken[entry.whole]))
            elif (
                entry.key is not None
                and (first := first_of.setdefault(entry.key, entry)) is not entry
            ):
                first.receipt.share(entry.receipt)
            else:
                left.append(entry)
        self.entries = left

    def _take_known(
        self, entry: Entry, digest: bytes, place: Position, closed: dict[str, Exception]
    ) -> None:
        if digest != entry.digest:
            text = f"the idempotency key {entry.key!r} was used for another event of "
            self.refused.append((entry, UsageError(f"{text}{self.shared.log_id!r}")))
        else:
            self.repeated.append((entry, place))
        if entry.step is Step.START and entry.run_id is not None:
            # Whatever this process made of the start, the run is not its own.
            closed[entry.run_id] = RunClosed(entry.run_id, KNOWN_RUN)
            self.ours_no_more[entry.run_id] = KNOWN_RUN

    # To everyone

    def tell(self, outcome: Outcome) -> None:
        """Add what became of the batch to an outcome."""
        stream = self.shared
        for entries, epoch, first, at in self.appended:
            for seq, entry in enumerate(entries, first):
                outcome.appended.append((stream, entry, entry.to_record(epoch, seq, at)))
        outcome.refused += [(stream, entry, error) for entry, error in self.refused]
        outcome.repeated += [(stream, entry, place) for entry, place in self.repeated]
        if self.ours_no_more or self.cancels:
            outcome.effects.append(self._note_runs)

    def _note_runs(self) -> None:
        stream = self.shared
        for run_id, reason in self.ours_no_more.items():
            run = stream.runs.get(run_id)
            if run is not None and self.holder:
                run.close(reason)
                stream.open_runs.discard(run_id)
        for run_id, cancel in self.cancels.items():
            run = stream.runs.get(run_id)
            if run is not None and run.is_open and not run.is_cancel_requested:
                for tell in stream.cancel(run, *cancel):
                    tell()

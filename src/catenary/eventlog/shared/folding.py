"""Folding runs of logs whose first events may be gone, from what was kept of them."""

from __future__ import annotations

from collections.abc import Iterable

from catenary.eventlog.entry import Entry
from catenary.fold import RunFold, RunState, decode_state
from catenary.position import Position
from catenary.record import Record, rest_after
from catenary.wires.native import event_of


def kept_fold(kept: bytes | None) -> RunFold:
    """Return a fold that goes on with what was kept; a new one without it."""
    return RunFold(decode_state(kept)) if kept is not None else RunFold()


def apply_once(fold: RunFold, record: Record) -> None:
    """Fold what was not folded before; compaction may have joined it with what was."""
    if record.first_seq <= fold.last_seq < record.seq:
        record = rest_after(record, fold.last_seq)
    if record.first_seq > fold.last_seq:
        fold.apply(event_of(record))


def fold_waiting(fold: RunFold, waiting: Iterable[Entry], head: Position) -> RunState:
    """Fold what waits to be committed after a head, and return the state."""
    seq = max(head.seq, fold.last_seq)
    for entry in waiting:
        # Its number is not known yet; that it is above the head is all that folding needs.
        seq += 1
        fold.apply(event_of(entry.to_record(head.epoch or "new", seq, 0)))
    return fold.state

"""What one user's log is in ``memory://``: its records, terms and commands."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

import msgspec

from catenary.eventlog.commands import CommandTable
from catenary.eventlog.model import Page, Retention, RunInfo
from catenary.eventlog.paging import fill_page
from catenary.eventlog.retention import tombstone, trim_limits
from catenary.eventlog.stream import HeldRun, Stream
from catenary.eventlog.terms import Terms
from catenary.fold import RunFold, encode_state
from catenary.position import Position
from catenary.record import Record, index_after, merge_adjacent, rest_after
from catenary.wires.native import event_of

COMPACT_SLICE = 2000

LOOKED_AT = 4000
"""How many records a page looks at, so that a filter that takes few holds nobody up."""


class MemoryStream(Stream):
    """A stream that holds its records."""

    __slots__ = (
        "bytes_held",
        "commands",
        "compact_from",
        "records",
        "seen",
        "terms",
        "trim_bytes",
        "trim_events",
        "unreported",
    )

    def __init__(self, log_id: str, epoch: str) -> None:
        super().__init__(log_id, epoch, 0)
        self.terms = Terms(epoch)
        self.records: list[Record] = []
        self.bytes_held = 0
        self.trim_events = 0
        self.trim_bytes = 0
        self.compact_from: int | None = None
        self.commands = CommandTable()
        self.seen: Position | None = None
        self.unreported: OrderedDict[str, RunInfo] = OrderedDict()

    def oldest_open(self) -> int | None:
        """Return the first ``seq`` of the oldest open run."""
        return min((run.first_seq for run in self.runs.values() if run.is_open), default=None)

    def page(
        self,
        after: Position,
        *,
        limit: int,
        limit_bytes: int,
        thread_ids: Collection[str] | None,
        run_id: str | None,
    ) -> Page:
        """Return the next page after a place; see ``EventLog.read``."""
        gap = self.terms.gap_after(after)
        place = gap.place if gap is not None else after
        index = index_after(self.records, place.seq)
        return fill_page(
            self.records[index : index + LOOKED_AT],
            self.terms,
            place,
            gap,
            limit=limit,
            limit_bytes=limit_bytes,
            thread_ids=thread_ids,
            run_id=run_id,
        )

    def fold_run(self, run: HeldRun) -> RunFold:
        """Bring what is folded of a run up to the head."""
        fold = run.fold = run.fold or RunFold()
        through = max(fold.state.last_seq, run.first_seq - 1) if fold.is_begun else 0
        for record in self.records[index_after(self.records, through) :]:
            if record.run_id == run.run_id:
                _apply(fold, record)
        return fold

    def trim_later(self, retention: Retention) -> None:
        """Let the log grow by some slack, so that trimming is seldom."""
        self.trim_events, self.trim_bytes = trim_limits(
            retention, len(self.records), self.bytes_held
        )

    def drop(self, count: int) -> None:
        """Drop the oldest records; what open and unreported runs said in them stays folded."""
        gone = self.records[:count]
        unreported: dict[str, RunFold] = {}
        for record in gone:
            run = self.runs.get(record.run_id) if record.run_id is not None else None
            if run is not None and (run.is_open or run.run_id in self.unreported):
                run.fold = run.fold or RunFold()
                _apply(run.fold, record)
                if not run.is_open:
                    unreported[run.run_id] = run.fold
        for run_id, fold in unreported.items():
            self.unreported[run_id] = msgspec.structs.replace(
                self.unreported[run_id], kept_fold=encode_state(fold.state)
            )
        del self.records[:count]
        self.bytes_held -= sum(record.size_bytes for record in gone)
        self.terms.first = self.records[0].first_seq if self.records else self.head + 1

    def compact(self) -> bool:
        """Merge a slice of what ended runs left; returns whether more is to do."""
        if self.compact_from is None:
            return False
        index = index_after(self.records, self.compact_from - 1)
        part = self.records[index : index + COMPACT_SLICE]
        merged = list(merge_adjacent(part))
        self.records[index : index + COMPACT_SLICE] = merged
        self.bytes_held -= sum(record.size_bytes for record in part)
        self.bytes_held += sum(record.size_bytes for record in merged)
        is_done = len(part) < COMPACT_SLICE
        self.compact_from = None if is_done else part[-1].seq
        return not is_done

    def erase_all(self) -> int:
        """Drop every record, and what is known of runs and commands; returns how many."""
        count = len(self.records)
        for run in self.runs.values():
            run.close("its events were erased")
        self.drop(count)
        self.keys.clear()
        self.commands = CommandTable()
        self.unreported.clear()
        if self.tail is not None:
            self.tail.clear()
        return count

    def erase_thread(self, thread_id: str) -> int:
        """Put tombstones in the place of a thread's records; returns how many."""
        found = [i for i, record in enumerate(self.records) if record.thread_id == thread_id]
        for i in found:
            self.records[i] = tombstone(self.records[i], self.log_id)
        for run in self.runs.values():
            if run.thread_id == thread_id:
                run.close("its events were erased")
                self.unreported.pop(run.run_id, None)
        self.bytes_held = sum(record.size_bytes for record in self.records)
        if self.tail is not None:
            self.tail.clear()
        if found:
            self.compact_from = self.records[found[0]].first_seq
        return len(found)


def _apply(fold: RunFold, record: Record) -> None:
    """Fold what was not folded before; compaction may have joined it with what was."""
    if record.first_seq <= fold.last_seq < record.seq:
        record = rest_after(record, fold.last_seq)
    fold.apply(event_of(record))

"""
Records: events as a log keeps them, and how adjacent ones are merged.

The body of a record is the event's JSON from just after its numbers to the
end, encoded once by the emitter. A log adds the numbers when it commits, so
nothing is ever encoded twice. Pure: no I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import msgspec

from catenary.position import Position

MERGED_LIMIT_BYTES = 64 * 1024
"""A merged delta stays under this size."""

_DELTA_END = len(b'"}}')


class Record(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """
    One committed event, or a range of merged ones.

    Attributes:
        seq: Its number; of a merged range, the last one.
        epoch: The term that the number belongs to.
        type: The event's type.
        body: The event's JSON after ``"seq":N,``, with all closing braces.
        at: When it was committed, in milliseconds since 1970.
        thread_id: The thread of the event, for filtered readers.
        run_id: The run of the event.
        merge: Adjacent records with the same, non-empty value may be merged.
        delta_at: Where the text of a delta begins in ``body``; 0 if it is none.
        from_seq: The first number of a merged range; 0 if it is one event.
        cuts: Of a merged delta, the length in bytes of the text through each
            number of the range, so that a resume inside it gets only the rest.
    """

    seq: int
    epoch: str
    type: str
    body: bytes
    at: int
    thread_id: str | None = None
    run_id: str | None = None
    merge: str | None = None
    delta_at: int = 0
    from_seq: int = 0
    cuts: tuple[int, ...] = ()

    @property
    def first_seq(self) -> int:
        """The first number that this record stands for."""
        return self.from_seq or self.seq

    @property
    def position(self) -> Position:
        """The place just after this record."""
        return Position(self.epoch, self.seq)

    @property
    def size_bytes(self) -> int:
        """What the record counts for in limits: its body and what surrounds it."""
        return len(self.body) + 200

    @property
    def text(self) -> bytes:
        """The text of a delta, as it stands in the JSON string."""
        return self.body[self.delta_at : -_DELTA_END]


def rest_after(record: Record, seq: int) -> Record:
    """
    Return what a reader that has everything through ``seq`` still lacks of a record.

    ``seq`` lies inside the record's range.
    """
    if not record.delta_at:
        first = seq + 1
        return msgspec.structs.replace(record, from_seq=0 if first == record.seq else first)
    begin = record.cuts[seq - record.from_seq]
    head, text = record.body[: record.delta_at], record.body[record.delta_at + begin :]
    kept = record.cuts[seq - record.from_seq + 1 :]
    alone = len(kept) == 1
    return msgspec.structs.replace(
        record,
        body=head + text,
        from_seq=0 if alone else seq + 1,
        cuts=() if alone else tuple(cut - begin for cut in kept),
    )


def merge_adjacent(records: Iterable[Record]) -> Iterator[Record]:
    """
    Merge neighbours that may stand for each other.

    Deltas of one message and part are joined under :data:`MERGED_LIMIT_BYTES`;
    of events with one ``key`` the latest stays. Everything else passes. The
    records are those of one reader, in order; a filtered reader's range may
    span numbers that are not its own.
    """
    group: list[Record] = []
    size = 0
    for record in records:
        if group and not _joins(group[-1], record, size):
            yield _joined(group)
            group, size = [], 0
        group.append(record)
        size += len(record.body)
    if group:
        yield _joined(group)


def _joins(last: Record, record: Record, size: int) -> bool:
    return (
        record.merge is not None
        and record.merge == last.merge
        and record.epoch == last.epoch
        and (not record.delta_at or size + len(record.body) <= MERGED_LIMIT_BYTES)
    )


def _joined(group: list[Record]) -> Record:
    if len(group) == 1:
        return group[0]
    first, last = group[0], group[-1]
    if not last.delta_at:
        return msgspec.structs.replace(last, from_seq=first.first_seq)
    texts: list[bytes] = []
    cuts: list[int] = []
    through = 0
    previous = first.first_seq - 1
    for record in group:
        # A filtered reader's neighbours may lie apart; the numbers between hold no text.
        cuts.extend([through] * (record.first_seq - previous - 1))
        cuts.extend(through + cut for cut in record.cuts or (len(record.text),))
        texts.append(record.text)
        through += len(record.text)
        previous = record.seq
    body = last.body[: last.delta_at] + b"".join(texts) + b'"}}'
    return msgspec.structs.replace(
        last,
        body=body,
        from_seq=first.first_seq,
        cuts=tuple(cuts),
    )


def index_after(records: list[Record], seq: int) -> int:
    """Return the index of the first record that holds a number above ``seq``."""
    return bisect_right(records, seq, key=_last_seq)


def _last_seq(record: Record) -> int:
    return record.seq

"""
Batches of records as stores keep them: one blob a user and commit.

What the records of a batch have in common is stored once in it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from catenary.errors import RecordCorrupt
from catenary.eventlog.entry import Entry
from catenary.record import Record

BATCH_EVENTS = 500
BATCH_BYTES = 256 * 1024
"""A blob holds at most so much, unless one record alone is larger."""

RECORD_BYTES = 200
"""What a record counts for in limits beside its body."""

_HEAD_END = b'"timestamp":'


class _Shared(msgspec.Struct, frozen=True, array_like=True):
    """What several records of a batch have in common; ``head`` begins their bodies."""

    type: str
    thread_id: str | None
    run_id: str | None
    merge: str | None
    head: bytes


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record; ``later`` is its time after the batch's, ``span`` the numbers it stands for."""

    shared: int
    rest: bytes
    delta_at: int
    later: int = 0
    span: int = 1
    cuts: tuple[int, ...] = ()


class _Body(msgspec.Struct, frozen=True, array_like=True):
    epoch: str
    at: int
    first_seq: int
    shared: list[_Shared]
    rows: list[_Row]


class _Numbered(msgspec.Struct, frozen=True, array_like=True):
    """A body whose store keeps its numbers beside it."""

    shared: list[_Shared]
    rows: list[_Row]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode
_decode_numbered = msgspec.msgpack.Decoder(_Numbered).decode


class BatchRow(NamedTuple):
    """A batch as a store keeps it, but for its key and who wrote it."""

    first_seq: int
    last_seq: int
    at: int
    events: int
    size_bytes: int
    body: bytes
    epoch: str


class _Packing:
    """Rows in the making."""

    def __init__(self) -> None:
        self.shared: dict[tuple[Any, ...], int] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.size_bytes = 0

    def row_of(self, item: Record | Entry) -> tuple[int, bytes, int]:
        """Return what is particular to one record, but for its numbers and time."""
        body = item.body
        self.size_bytes += len(body) + RECORD_BYTES
        cut = body.find(_HEAD_END) + len(_HEAD_END)
        key = (item.type, item.thread_id, item.run_id, item.merge, body[:cut])
        return self.shared.setdefault(key, len(self.shared)), body[cut:], item.delta_at


def _rows(records: Sequence[Record]) -> _Packing:
    packing = _Packing()
    begin = records[0].at
    for record in records:
        row: tuple[Any, ...] = packing.row_of(record)
        later = record.at - begin
        if record.from_seq:
            row = (*row, later, record.seq - record.from_seq + 1, record.cuts)
        elif later:
            row = (*row, later)
        packing.rows.append(row)
    return packing


def pack(records: Sequence[Record]) -> BatchRow:
    """Return the row of neighbouring records of one term, with their numbers in the body."""
    first, last = records[0], records[-1]
    packing = _rows(records)
    parts = (first.epoch, first.at, first.first_seq, list(packing.shared), packing.rows)
    return _row(records, packing.size_bytes, _encode(parts), first, last)


def pack_numbered(records: Sequence[Record]) -> BatchRow:
    """Return the row of neighbouring records of one term; the store keeps its numbers."""
    packing = _rows(records)
    body = _encode((list(packing.shared), packing.rows))
    return _row(records, packing.size_bytes, body, records[0], records[-1])


def _row(
    records: Sequence[Record], size_bytes: int, body: bytes, first: Record, last: Record
) -> BatchRow:
    return BatchRow(
        first.first_seq, last.seq, first.at, len(records), size_bytes, body, first.epoch
    )


class Part(NamedTuple):
    """Some entries that wait for their numbers, as one blob."""

    events: int
    size_bytes: int
    body: bytes


def pack_entries(entries: Sequence[Entry]) -> list[Part]:
    """Return entries in bounded blobs; the store keeps the numbers that it gives them."""
    parts: list[Part] = []
    packing = _Packing()
    for entry in entries:
        if packing.rows and (
            len(packing.rows) >= BATCH_EVENTS
            or packing.size_bytes + len(entry.body) + RECORD_BYTES > BATCH_BYTES
        ):
            parts.append(_part(packing))
            packing = _Packing()
        packing.rows.append(packing.row_of(entry))
    if packing.rows:
        parts.append(_part(packing))
    return parts


def _part(packing: _Packing) -> Part:
    body = _encode((list(packing.shared), packing.rows))
    return Part(len(packing.rows), packing.size_bytes, body)


def in_bounds(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Return neighbouring records, of any terms, in pieces that a blob may hold."""
    part: list[Record] = []
    size = 0
    for record in records:
        if part and (
            len(part) >= BATCH_EVENTS
            or size + record.size_bytes > BATCH_BYTES
            or record.epoch != part[0].epoch
        ):
            yield part
            part, size = [], 0
        part.append(record)
        size += record.size_bytes
    if part:
        yield part


def pack_all(records: Iterable[Record]) -> Iterator[BatchRow]:
    """Return the rows of neighbouring records, of any terms, in bounded rows."""
    return map(pack, in_bounds(records))


def unpack(where: str, packed: bytes) -> list[Record]:
    """
    Return the records of a row that :func:`pack` made.

    Raises:
        RecordCorrupt: If it cannot be read; the text names where it stands.
    """
    try:
        body = _decode(packed)
        return _records(body.shared, body.rows, body.epoch, body.first_seq, body.at)
    except (msgspec.DecodeError, IndexError, UnicodeDecodeError) as error:
        raise RecordCorrupt(f"{where} cannot be read: {error}") from None


def unpack_numbered(
    where: str, packed: bytes, *, epoch: str, first_seq: int, at: int
) -> list[Record]:
    """Return the records of a blob whose numbers its store keeps. Raises as ``unpack``."""
    try:
        body = _decode_numbered(packed)
        return _records(body.shared, body.rows, epoch, first_seq, at)
    except (msgspec.DecodeError, IndexError, UnicodeDecodeError) as error:
        raise RecordCorrupt(f"{where} cannot be read: {error}") from None


def _records(
    shared: list[_Shared], rows: list[_Row], epoch: str, first_seq: int, at: int
) -> list[Record]:
    seq = first_seq - 1
    records = []
    for row in rows:
        common = shared[row.shared]
        first, seq = seq + 1, seq + row.span
        records.append(
            Record(
                seq,
                epoch,
                common.type,
                common.head + row.rest,
                at + row.later,
                common.thread_id,
                common.run_id,
                common.merge,
                row.delta_at,
                first if row.span > 1 else 0,
                row.cuts,
            )
        )
    return records

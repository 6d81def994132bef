"""
Batches of records as SQLite keeps them: one blob a user and commit.

What the records of a batch have in common is stored once in it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from catenary.errors import RecordCorrupt
from catenary.record import Record

BATCH_EVENTS = 500
BATCH_BYTES = 256 * 1024
"""A row holds at most so much, unless one record alone is larger."""

_SEQ_BITS = 40
_HEAD_END = b'"timestamp":'


def place_of(log: int, seq: int) -> int:
    """Return the key of the row whose last record is ``seq``; rows sort by log, then seq."""
    return log << _SEQ_BITS | seq


def seq_of(place: int) -> int:
    """Return the last ``seq`` of the row with this key."""
    return place & (1 << _SEQ_BITS) - 1


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


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


class BatchRow(NamedTuple):
    """A row of the table of batches, but for its key and who wrote it."""

    first_seq: int
    last_seq: int
    at: int
    events: int
    size_bytes: int
    body: bytes


def pack(records: Sequence[Record]) -> BatchRow:
    """Return the row of neighbouring records of one term."""
    first, last = records[0], records[-1]
    indexes: dict[tuple[Any, ...], int] = {}
    rows: list[tuple[Any, ...]] = []
    size = 0
    for record in records:
        body = record.body
        size += record.size_bytes
        cut = body.find(_HEAD_END) + len(_HEAD_END)
        key = (record.type, record.thread_id, record.run_id, record.merge, body[:cut])
        index = indexes.setdefault(key, len(indexes))
        later = record.at - first.at
        if record.from_seq:
            span = record.seq - record.from_seq + 1
            rows.append((index, body[cut:], record.delta_at, later, span, record.cuts))
        elif later:
            rows.append((index, body[cut:], record.delta_at, later))
        else:
            rows.append((index, body[cut:], record.delta_at))
    packed = _encode((first.epoch, first.at, first.first_seq, list(indexes), rows))
    return BatchRow(first.first_seq, last.seq, first.at, len(records), size, packed)


def pack_all(records: Iterable[Record]) -> Iterator[BatchRow]:
    """Return the rows of neighbouring records, of any terms, in bounded rows."""
    part: list[Record] = []
    size = 0
    for record in records:
        if part and (
            len(part) >= BATCH_EVENTS
            or size + record.size_bytes > BATCH_BYTES
            or record.epoch != part[0].epoch
        ):
            yield pack(part)
            part, size = [], 0
        part.append(record)
        size += record.size_bytes
    if part:
        yield pack(part)


def unpack(place: int, packed: bytes) -> list[Record]:
    """
    Return the records of a row.

    Raises:
        RecordCorrupt: If it cannot be read; the text names the row.
    """
    try:
        body = _decode(packed)
        records = _records(body)
    except (msgspec.DecodeError, IndexError, UnicodeDecodeError) as error:
        raise RecordCorrupt(f"row {place} of the table 'batches' cannot be read: {error}") from None
    if not records or records[-1].seq != seq_of(place):
        raise RecordCorrupt(f"row {place} of the table 'batches' does not end where its key says")
    return records


def _records(body: _Body) -> list[Record]:
    seq = body.first_seq - 1
    records = []
    for row in body.rows:
        shared = body.shared[row.shared]
        first, seq = seq + 1, seq + row.span
        records.append(
            Record(
                seq,
                body.epoch,
                shared.type,
                shared.head + row.rest,
                body.at + row.later,
                shared.thread_id,
                shared.run_id,
                shared.merge,
                row.delta_at,
                first if row.span > 1 else 0,
                row.cuts,
            )
        )
    return records

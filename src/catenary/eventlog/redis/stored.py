"""What is kept in Redis, as the rest of the program knows it. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from catenary.errors import RecordCorrupt
from catenary.eventlog.batch import RECORD_BYTES, unpack_numbered
from catenary.eventlog.terms import Term, Terms
from catenary.position import Position
from catenary.record import Record

encode = msgspec.msgpack.Encoder().encode
_HEADER = re.compile(rb"b (\w+) (\d+) (\d+) (\d+) (\d+) (\d+) (\w*)")


class Header(NamedTuple):
    """What stands before the records of a batch."""

    epoch: str
    first: int
    last: int
    at: int
    events: int
    size_bytes: int
    producer: str

    def share(self, first: int) -> tuple[int, int]:
        """Return what it counts for, in events and bytes, if all before ``first`` is gone."""
        if self.first >= first:
            return self.events, self.size_bytes
        left, span = self.last - first + 1, self.last - self.first + 1
        return self.events * left // span, self.size_bytes * left // span

    def line(self) -> bytes:
        """Return it as it is stored."""
        words = ("b", *self[:6], self.producer)
        return (" ".join(map(str, words)) + "\n").encode()


def header_of(batch: bytes) -> Header:
    """
    Return the header of a batch.

    Raises:
        RecordCorrupt: If it has none.
    """
    found = _HEADER.match(batch)
    if found is None:
        raise RecordCorrupt(f"a batch in Redis begins with {batch[:60]!r}, which no log wrote")
    epoch, first, last, at, events, size, producer = found.groups()
    return Header(
        epoch.decode(), int(first), int(last), int(at), int(events), int(size), producer.decode()
    )


def records_of(batch: bytes, header: Header) -> list[Record]:
    """
    Return the records of a batch.

    Raises:
        RecordCorrupt: If they cannot be read.
    """
    where = f"the batch {header.epoch}:{header.first} to {header.last} in Redis"
    body = batch[batch.index(b"\n") + 1 :]
    records = unpack_numbered(where, body, epoch=header.epoch, first_seq=header.first, at=header.at)
    if not records or records[-1].seq != header.last:
        raise RecordCorrupt(f"{where} does not end where its header says")
    return records


def batch_of(records: list[Record], body: bytes) -> tuple[Header, bytes]:
    """Return neighbouring records of one term as a batch; ``body`` is what they were packed to."""
    first, last = records[0], records[-1]
    size = sum(len(record.body) + RECORD_BYTES for record in records)
    header = Header(first.epoch, first.first_seq, last.seq, first.at, len(records), size, "-")
    return header, header.line() + body


def terms_of(epoch: str, head: int, first: int, former: str) -> Terms:
    """Return the terms that a log's meta tells."""
    ends = (term.split(":") for term in former.split())
    return Terms(epoch, head, first, [Term(name, int(last)) for name, last in ends])


def position_of(text: str) -> Position | None:
    """Return a place that is stored as text; None if it is empty."""
    return Position.parse(text) if text else None

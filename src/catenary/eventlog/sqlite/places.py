"""The keys of batches in SQLite: one number says the log and the last ``seq``. Pure."""

from __future__ import annotations

from catenary.errors import RecordCorrupt
from catenary.eventlog import batch
from catenary.record import Record

_SEQ_BITS = 40


def place_of(log: int, seq: int) -> int:
    """Return the key of the row whose last record is ``seq``; rows sort by log, then seq."""
    return log << _SEQ_BITS | seq


def seq_of(place: int) -> int:
    """Return the last ``seq`` of the row with this key."""
    return place & (1 << _SEQ_BITS) - 1


def unpack(place: int, packed: bytes) -> list[Record]:
    """
    Return the records of a row.

    Raises:
        RecordCorrupt: If it cannot be read; the text names the row.
    """
    where = f"row {place} of the table 'batches'"
    records = batch.unpack(where, packed)
    if not records or records[-1].seq != seq_of(place):
        raise RecordCorrupt(f"{where} does not end where its key says")
    return records

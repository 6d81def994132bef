"""
Retention over a list of records in order: what may go, and compaction.

Pure: the callers hold the records and their lock.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from catenary.encoding import encode
from catenary.eventlog.entry import Entry
from catenary.eventlog.model import Retention
from catenary.eventlog.receipt import Receipt
from catenary.events import Erased, EventType
from catenary.record import Record


def count_to_drop(
    records: Sequence[Record],
    bytes_held: int,
    retention: Retention,
    *,
    now_ms: int,
    open_first_seq: int | None,
) -> int:
    """
    Return how many of the oldest records must go.

    ``open_first_seq`` is where the oldest open run began, None without one;
    age spares what an open run still needs, numbers and bytes do not.
    """
    is_open = open_first_seq is not None
    limit_events = retention.open_events if is_open else retention.events
    limit_bytes = retention.open_bytes if is_open else retention.bytes
    oldest_ms = now_ms - int(retention.age * 1000)
    drop = max(0, len(records) - limit_events)
    held = bytes_held - sum(record.size_bytes for record in records[:drop])
    while drop < len(records):
        record = records[drop]
        is_old = record.at < oldest_ms and not (
            open_first_seq is not None and record.seq >= open_first_seq
        )
        if held <= limit_bytes and not is_old:
            break
        held -= record.size_bytes
        drop += 1
    return drop


def trim_limits(retention: Retention, events: int, bytes_held: int) -> tuple[int, int]:
    """
    Return beyond how many events and bytes a log of this size is to be trimmed next.

    There is slack over what is kept, so that trimming is seldom; a log that is
    larger because a run is open is looked at as seldom.
    """
    return (
        max(retention.events, events) + max(16, retention.events // 16),
        max(retention.bytes, bytes_held + retention.bytes // 16),
    )


def tombstone(record: Record, log_id: str) -> Record:
    """Return what stands in the log where an erased record stood: its numbers, nothing else."""
    return msgspec.structs.replace(
        record,
        type=str(EventType.ERASED),
        body=_erased_body(log_id, record.thread_id, record.at),
        run_id=None,
        merge=f"erased\0{record.thread_id}",
        delta_at=0,
        cuts=(),
    )


def erased_entry(log_id: str, at: int) -> Entry:
    """Return the event that says that all of a log was erased."""
    return Entry(str(EventType.ERASED), _erased_body(log_id, None, at), Receipt())


def _erased_body(log_id: str, thread_id: str | None, at: int) -> bytes:
    about = {"user_id": log_id, "thread_id": thread_id, "timestamp": at}
    head = encode({key: value for key, value in about.items() if value is not None})
    return head[1:-1] + b',"data":' + encode(Erased(thread_id=thread_id)) + b"}"

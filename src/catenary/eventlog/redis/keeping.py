"""Retention that must fold first, compaction and erasing, in Redis."""

from __future__ import annotations

from collections.abc import Iterable

from catenary.errors import LogUnavailable
from catenary.eventlog.batch import in_bounds, pack_entries, pack_numbered
from catenary.eventlog.entry import Entry
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.model import Retention
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.reading import LogAt, read_chunk
from catenary.eventlog.redis.runs import RUN_FIELDS, fields_of, stored_runs
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stored import Header, batch_of, encode, records_of
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.retention import tombstone
from catenary.eventlog.shared.folding import apply_once, kept_fold
from catenary.eventlog.shared.reading import CHUNK_EVENTS
from catenary.eventlog.shared.runs import RunStart
from catenary.fold import RunFold, encode_state
from catenary.record import Record, merge_adjacent

COMPACT_EVENTS = 1000
COMPACT_BYTES = 256 * 1024
"""How much one step of compaction takes in hand."""

ENDED_RUNS_KEPT = 1000
RUNS_LIMIT_FIELDS = 4 * ENDED_RUNS_KEPT
"""With more than so many fields in the hash of runs the oldest ended ones are forgotten."""

_CONFLICTS = 20
_AT_ONCE = 1000


def drop_folding(
    store: Store, keys: Keys, stream: RedisStream, now: str, retention: Retention
) -> None:
    """Drop the oldest batches of a log whose open runs need them, once they are folded."""
    log = stream.at(now)
    while True:
        words = ("HMGET", log.keys.meta, "n", "b", "f", "oc")
        found = store.command(log.bucket, *words)
        if found[0] is None:
            return
        held_events, held_bytes, first, open_runs = map(int, found)
        over_events = held_events - (retention.open_events if open_runs else retention.events)
        over_bytes = held_bytes - (retention.open_bytes if open_runs else retention.bytes)
        if over_events <= 0 and over_bytes <= 0:
            return
        chunk = read_chunk(store, log, first - 1, limit=COMPACT_EVENTS, limit_bytes=COMPACT_BYTES)
        dropped: list[tuple[Header, bytes]] = []
        for header, batch in chunk.batches:
            if over_events <= 0 and over_bytes <= 0:
                break
            dropped.append((header, batch))
            counts, size = header.share(first)
            over_events -= counts
            over_bytes -= size
        if not dropped:
            return
        _drop(store, keys, stream, log, first, dropped)


def _drop(
    store: Store,
    keys: Keys,
    stream: RedisStream,
    log: LogAt,
    first: int,
    dropped: list[tuple[Header, bytes]],
) -> None:
    open_ids = [
        field[2:].decode()
        for field in store.command(log.bucket, "HKEYS", log.keys.meta)
        if field.startswith(b"o:")
    ]
    folds: dict[str, RunFold] = {}
    if open_ids:
        kept = store.command(
            log.bucket, "HMGET", log.keys.runs, *(f"f:{run_id}" for run_id in open_ids)
        )
        for run_id, packed in zip(open_ids, kept, strict=True):
            folds[run_id] = kept_fold(packed)
    touched: dict[str, RunFold] = {}
    for header, batch in dropped:
        for record in records_of(batch, header):
            if record.run_id in folds:
                apply_once(folds[record.run_id], record)
                touched[record.run_id] = folds[record.run_id]
    args: list[bytes | str | int] = [
        log.now,
        stream.log_id,
        first,
        dropped[-1][0].last,
        *map(sum, zip(*(header.share(first) for header, _ in dropped), strict=True)),
    ]
    for run_id, fold in touched.items():
        args += [run_id, encode_state(fold.state)]
    due = keys.of_bucket(log.bucket, "due")
    store.call(log.bucket, "fold", (*log.keys[:4], due), *args)


def compact(store: Store, log: LogAt, after: int) -> int | None:
    """Merge a slice of a log after a number; returns its last number, None if there is none."""
    chunk = read_chunk(store, log, after, limit=COMPACT_EVENTS, limit_bytes=COMPACT_BYTES)
    records = [record for header, batch in chunk.batches for record in records_of(batch, header)]
    merged = list(merge_adjacent(records))
    if len(merged) < len(records):
        _rewrite(store, log, [header.last for header, _ in chunk.batches], merged)
    return records[-1].seq if records else None


def _rewrite(store: Store, log: LogAt, gone: list[int], records: Iterable[Record]) -> bool:
    """Put records in the place of the batches that end at some numbers; False if they are gone."""
    batches = [batch_of(part, pack_numbered(part).body)[1] for part in in_bounds(records)]
    return bool(store.call(log.bucket, "rewrite", log.keys[:3], len(gone), *gone, *batches))


def erase_all(store: Store, keys: Keys, log: LogAt, log_id: str, said: Entry) -> int:
    """Delete all of a log but its numbering; returns how many events there were."""
    (part,) = pack_entries([said])
    names = [keys.of_bucket(log.bucket, kind) for kind in ("open", "due", "ended")]
    count: int = store.call(
        log.bucket,
        "erase",
        (*log.keys[:6], *names),
        log.now,
        new_epoch(),
        log_id,
        log.keys.channel,
        part.size_bytes,
        part.body,
    )
    return count


def erase_thread(store: Store, keys: Keys, log: LogAt, log_id: str, thread_id: str) -> int:
    """Put tombstones in the place of a thread's records; returns how many."""
    _scrub_runs(store, keys, log, log_id, thread_id)
    count, after, conflicts = 0, 0, 0
    while (chunk := read_chunk(store, log, after, limit=CHUNK_EVENTS)).batches:
        for header, batch in chunk.batches:
            records = records_of(batch, header)
            found = sum(record.thread_id == thread_id for record in records)
            if found and not _erase_batch(store, log, log_id, thread_id, records):
                # Compaction was faster, on whatever node: look at what stands there now.
                conflicts += 1
                break
            count += found
            after = header.last
        if conflicts > _CONFLICTS:
            raise LogUnavailable(f"{log_id!r} changes all the time; ask again to erase the rest")
    store.call(log.bucket, "scrub", _scrub_keys(keys, log), log.now, log_id, log.keys.channel)
    return count


def _erase_batch(
    store: Store, log: LogAt, log_id: str, thread_id: str, records: list[Record]
) -> bool:
    erased = [
        tombstone(record, log_id) if record.thread_id == thread_id else record for record in records
    ]
    return _rewrite(store, log, [records[-1].seq], merge_adjacent(erased))


def _scrub_keys(keys: Keys, log: LogAt) -> list[bytes]:
    names = [keys.of_bucket(log.bucket, kind) for kind in ("open", "due", "ended")]
    return [log.keys.meta, log.keys.runs, *names]


def _scrub_runs(store: Store, keys: Keys, log: LogAt, log_id: str, thread_id: str) -> None:
    """Fence the thread's runs first, so that nothing of them comes after the erasing."""
    meta = fields_of(store.command(log.bucket, "HGETALL", log.keys.meta))
    runs = fields_of(store.command(log.bucket, "HGETALL", log.keys.runs))
    args: list[bytes | str | int] = [log.now, log_id, log.keys.channel]
    for run in stored_runs(log_id, meta, runs):
        if run.info.thread_id == thread_id:
            kept = RunStart(started_at=run.info.started_at, thread_id=thread_id)
            args += [run.info.run_id, kept.packed()]
    store.call(log.bucket, "scrub", _scrub_keys(keys, log), *args)


def forget_runs(store: Store, log: LogAt, log_id: str) -> None:
    """Forget the oldest ended runs of a log beyond what is kept."""
    meta = fields_of(store.command(log.bucket, "HGETALL", log.keys.meta))
    runs = fields_of(store.command(log.bucket, "HGETALL", log.keys.runs))
    ended = [run.info for run in stored_runs(log_id, meta, runs) if not run.info.is_open]
    gone = ended[: max(0, len(ended) - ENDED_RUNS_KEPT)]
    fields = [f"{kind}:{info.run_id}" for info in gone for kind in RUN_FIELDS]
    for begin in range(0, len(fields), _AT_ONCE):
        store.command(log.bucket, "HDEL", log.keys.runs, *fields[begin : begin + _AT_ONCE])


def trim(store: Store, keys: Keys, streams: list[RedisStream], now: str) -> list[RedisStream]:
    """Drop what is too old of logs of one bucket; returns those that must be folded first."""
    bucket = streams[0].bucket
    names = [keys.of_bucket(bucket, "due")]
    for stream in streams:
        names += stream.names[:5]
    packed = encode([stream.log_id for stream in streams])
    answer = store.call(bucket, "trim", names, now, packed)
    return [stream for stream, must in zip(streams, answer, strict=True) if must]

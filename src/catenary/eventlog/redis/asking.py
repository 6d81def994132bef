"""Asking Redis about runs; each function is one look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from catenary.eventlog.entry import Entry
from catenary.eventlog.redis.keys import BUCKETS, Keys
from catenary.eventlog.redis.link import Call
from catenary.eventlog.redis.reading import records_between
from catenary.eventlog.redis.runs import (
    META_FIELDS,
    RUN_FIELDS,
    fields_of,
    stored_run,
    stored_runs,
)
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stored import encode
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.shared.folding import apply_once, fold_waiting, kept_fold
from catenary.eventlog.shared.runs import StoredRun
from catenary.eventlog.stream import HeldRun
from catenary.fold import RunFold, RunState
from catenary.position import Position

_decode_member = msgspec.msgpack.Decoder(tuple[str, str]).decode
_decode_due = msgspec.msgpack.Decoder(tuple[str, str, str]).decode

CLAIM_MS = 60_000
"""For so long an ended run is one process's to report."""

DUE_AT_ONCE = 100

RunKey = tuple[str, str]
"""The log's id and the run's."""


def runs_of(store: Store, stream: RedisStream) -> list[StoredRun]:
    """Return every run that a log knows, oldest first."""
    keys = stream.names
    meta = fields_of(store.command(stream.bucket, "HGETALL", keys.meta))
    runs = fields_of(store.command(stream.bucket, "HGETALL", keys.runs))
    return list(stored_runs(stream.log_id, meta, runs))


def some_runs(store: Store, keys: Keys, wanted: Sequence[RunKey]) -> list[StoredRun | None]:
    """Return runs by log and id; None for those that are not known."""
    asked: list[tuple[int, list[bytes | str]]] = []
    for log_id, run_id in wanted:
        bucket, names = keys.bucket_of(log_id), keys.of_log(log_id)
        asked.append((bucket, ["HMGET", names.meta, *_meta_fields(run_id)]))
        asked.append((bucket, ["HMGET", names.runs, *_run_fields(run_id)]))
    answers = store.commands(asked)
    return [
        run_from(log_id, run_id, answers[2 * at], answers[2 * at + 1])
        for at, (log_id, run_id) in enumerate(wanted)
    ]


def _meta_fields(run_id: str) -> list[str]:
    return [f"{kind}:{run_id}" for kind in META_FIELDS]


def _run_fields(run_id: str) -> list[str]:
    return [f"{kind}:{run_id}" for kind in RUN_FIELDS]


def run_from(
    log_id: str, run_id: str, meta: Sequence[bytes | None], runs: Sequence[bytes | None]
) -> StoredRun | None:
    """Return a run from the answers to its fields; None if it is not known."""
    if runs[0] is None:
        return None
    known = [
        {name.encode(): value for name, value in zip(names, values, strict=True) if value}
        for names, values in ((_meta_fields(run_id), meta), (_run_fields(run_id), runs))
    ]
    return stored_run(log_id, run_id, *known)


def has_run(store: Store, stream: RedisStream, run_id: str) -> bool:
    """Return whether a log has, or had, a run."""
    return bool(store.command(stream.bucket, "HEXISTS", stream.names.runs, f"i:{run_id}"))


def logs_with_run(store: Store, keys: Keys, run_id: str) -> list[RunKey]:
    """Return the logs that have a run of this id: a look into every bucket, for operators."""
    answers = store.commands(
        [(bucket, ("SMEMBERS", keys.of_run(bucket, run_id))) for bucket in range(BUCKETS)]
    )
    return [(log_id.decode(), run_id) for answer in answers for log_id in answer]


def all_open(store: Store, keys: Keys) -> dict[RunKey, str]:
    """Return who holds each open run; nothing for those with a lease of their own."""
    answers = store.commands(
        [(bucket, ("HGETALL", keys.of_bucket(bucket, "open"))) for bucket in range(BUCKETS)]
    )
    return {
        _decode_member(member): holder.decode()
        for answer in answers
        for member, holder in fields_of(answer).items()
    }


def what_is_due(store: Store, keys: Keys, now_ms: int) -> list[tuple[int, tuple[str, str, str]]]:
    """Return what is due by a time: buckets, with kind, log and run."""
    words = ("-inf", now_ms, "LIMIT", 0, DUE_AT_ONCE)
    answers = store.commands(
        [
            (bucket, ("ZRANGEBYSCORE", keys.of_bucket(bucket, "due"), *words))
            for bucket in range(BUCKETS)
        ]
    )
    return [
        (bucket, _decode_due(member)) for bucket, answer in enumerate(answers) for member in answer
    ]


def put_off(
    store: Store, keys: Keys, bucket: int, member: tuple[str, str, str], at_ms: int | None
) -> None:
    """Let something be due later, or no more."""
    name, packed = keys.of_bucket(bucket, "due"), encode(list(member))
    if at_ms is None:
        store.command(bucket, "ZREM", name, packed)
    else:
        store.command(bucket, "ZADD", name, "XX", at_ms, packed)


def take_ended(
    store: Store, keys: Keys, buckets: Iterable[int], holder: str, limit: int, now: str
) -> list[tuple[float, RunKey]]:
    """Take ended runs to report, for a while; returns them with what orders them."""
    calls = [
        Call(bucket, "report", _ended(keys, bucket), (now, "take", holder, limit, CLAIM_MS))
        for bucket in buckets
    ]
    found = []
    for answer in store.call_all(calls) if calls else ():
        for member, score in zip(answer[::2], answer[1::2], strict=True):
            found.append((float(score), _decode_member(member)))
    return sorted(found)[:limit]


def _ended(keys: Keys, bucket: int) -> list[bytes]:
    return [keys.of_bucket(bucket, "ended"), keys.of_bucket(bucket, "claims")]


def mark_ended(store: Store, keys: Keys, run: RunKey, now: str) -> None:
    """Record that an ended run was reported."""
    bucket = keys.bucket_of(run[0])
    store.call(bucket, "report", _ended(keys, bucket), now, "done", encode(list(run)))


def adopt(
    store: Store,
    keys: Keys,
    stream: RedisStream,
    holder: str,
    which: str,
    run_ids: Sequence[str],
    idempotency_keys: Sequence[str] = (),
) -> tuple[list[StoredRun | None], list[bytes | None]]:
    """Hold open runs from now on: ``leased`` ones, or ``any``; returns them, and the keys' values."""
    names = (
        stream.names.meta,
        stream.names.runs,
        stream.names.known,
        keys.of_bucket(stream.bucket, "open"),
    )
    fields, values = store.call(
        stream.bucket,
        "adopt",
        names,
        stream.log_id,
        holder,
        which,
        encode(list(run_ids)),
        encode(list(idempotency_keys)),
    )
    found = [
        run_from(stream.log_id, run_id, fields[2 * at], fields[2 * at + 1])
        for at, run_id in enumerate(run_ids)
    ]
    return found, values


def cancel(
    store: Store, keys: Keys, stream: RedisStream, run_id: str, words: bytes, now: str
) -> list[bytes]:
    """Store a request to cancel a run; see ``cancel.lua``."""
    names = (stream.names.meta, stream.names.runs, keys.of_bucket(stream.bucket, "due"))
    answer: list[bytes] = store.call(
        stream.bucket, "cancel", names, now, stream.log_id, run_id, words
    )
    return answer


def fold(
    store: Store | None,
    stream: RedisStream,
    run: HeldRun,
    head: Position,
    waiting: Iterable[Entry],
    now: str,
) -> RunState:
    """Fold a run through ``head``, then what waits. Without a store all of it waits."""
    folded = RunFold()
    if store is not None:
        folded = kept_fold(
            store.command(stream.bucket, "HGET", stream.names.runs, f"f:{run.run_id}")
        )
        after = max(folded.last_seq, run.first_seq - 1)
        for record in records_between(store, stream.at(now), after, head.seq):
            if record.run_id == run.run_id:
                apply_once(folded, record)
    return fold_waiting(folded, waiting, head)

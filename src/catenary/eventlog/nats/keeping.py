"""
Retention in JetStream: what goes, and folding what open runs said in it.

The state says first what is retained no more; then it is taken out of the
stream. Whoever dies in between leaves what nobody reads any more, and it goes
with what is dropped next.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import msgspec

from catenary.eventlog.entry import Entry
from catenary.eventlog.model import Retention
from catenary.eventlog.nats import records
from catenary.eventlog.nats.changing import IDLE_SECONDS, Change, change, load
from catenary.eventlog.nats.errors import Conflict
from catenary.eventlog.nats.marks import Cut, cut_at, cut_before, mark_before, marks_from
from catenary.eventlog.nats.names import Names, token
from catenary.eventlog.nats.posts import Found, Post
from catenary.eventlog.nats.reading import read_last, records_between
from catenary.eventlog.nats.records import Due, RunRecord
from catenary.eventlog.nats.state import State, batch_in
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.shared.folding import apply_once, kept_fold
from catenary.eventlog.shared.runs import RunStart
from catenary.fold import RunFold, encode_state

ENDED_RUNS_KEPT = 1000
KEYS_KEPT = 2000
"""So many ended runs and idempotency keys of a log are kept at least; at twice as many the oldest go."""

_CHUNK_BYTES = 512 * 1024


# What others must know of


def mark(names: Names, holder: str, stream: NatsStream) -> Post:
    """Return what says that a process may hold runs of a log."""
    return Post(names.holding(holder, stream.log_id), records.encode(stream.log_id))


def expect_leases(store: Store, stream: NatsStream, starts: Sequence[Entry], now_ms: int) -> None:
    """See to it that somebody looks when the leases of runs that begin are over."""
    for entry in starts:
        lease = RunStart.of(entry).lease if b'"lease"' in entry.body else None
        if lease is not None:
            look_at(store, stream, "l", now_ms + int(lease * 1000) + 1)


def look_at(store: Store, stream: NatsStream, kind: str, at: int) -> None:
    """See to it that somebody looks at a log by a time, at the latest."""
    subject = stream.names.dues + kind
    due = records.encode(Due(stream.log_id, at))
    expected = 0
    while True:
        try:
            store.publish(Post(subject, due, expected=expected))
        except Conflict:
            found = store.last(store.names.values_stream, subject)
            expected = found.seq if found is not None else 0
            if found is not None and records.decode(found.payload, Due).at <= at:
                return
        else:
            return


def put_off(store: Store, due: Found, log_id: str, at: int | None) -> None:
    """Let something be due later, or no more; what became due meanwhile stays."""
    if at is None:
        store.remove(store.names.values_stream, [due.seq])
        return
    post = Post(due.subject, records.encode(Due(log_id, at)), expected=due.seq)
    store.publish_all([[post]])


# What is retained


def _limits(state: State, retention: Retention) -> tuple[int, int]:
    if state.runs:
        return retention.open_events, retention.open_bytes
    return retention.events, retention.bytes


def is_over(state: State, retention: Retention) -> bool:
    """Whether so much is retained that the oldest are to go; with slack, so that it is seldom."""
    most_events, most_bytes = _limits(state, retention)
    events, size = state.retained
    return (
        events > most_events + max(16, retention.events // 16)
        or size > most_bytes + retention.bytes // 16
    )


def trim(store: Store, stream: NatsStream, retention: Retention, now_ms: int) -> None:
    """Let the oldest go, down to the limits; what open runs said in them is folded."""

    def cut_of(state: State) -> Cut:
        most_events, most_bytes = _limits(state, retention)
        over = state.events - most_events, state.size_bytes - most_bytes
        return cut_at(state.marks, state.end, *over)

    load(store, [stream])
    known = stream.known
    if known is None:
        return
    cut = cut_of(msgspec.structs.replace(known.state, marks=known.marks))
    needed = known.state.oldest_open
    if needed is not None and cut.first > needed:
        _fold(store, stream, cut.first - 1, now_ms)
    drop(store, stream, lambda state: min(cut.first, cut_of(state).first), now_ms)


def drop(store: Store, stream: NatsStream, first_of: Callable[[State], int], now_ms: int) -> None:
    """Let all before a number go: say so, then take it out of the stream."""

    def make(state: State) -> Change | None:
        first = first_of(state)
        if first <= state.first:
            return None
        cut = cut_before(state.marks, state.end, first)
        is_much = (first - state.dropped) * 2 >= state.head + 1 - first
        return Change(
            msgspec.structs.replace(
                state,
                first=first,
                events_gone=max(cut.events, state.events_gone),
                bytes_gone=max(cut.size_bytes, state.bytes_gone),
                dropped=first if is_much else state.dropped,
                marks=marks_from(state.marks, first),
            )
        )

    known = change(store, stream, now_ms, make)
    if known is not None and known.state.dropped == known.state.first:
        take_out(store, stream, known.state, known.seq)


def take_out(store: Store, stream: NatsStream, state: State, seq: int) -> None:
    """Take out of the stream what lies before the first number; ``seq`` is where the state is."""
    names, events = stream.names, store.names.events_stream
    if not state.is_rewritten_gone:
        found = mark_before(state.marks, state.first)
        if found is not None:
            store.purge(events, names.rewritten + state.generation, seq=found.seq)
        return
    if state.generation:
        store.purge(events, names.rewritten + state.generation)
    take_out_appended(store, stream, state, state.first, seq)


def take_out_appended(store: Store, stream: NatsStream, state: State, first: int, seq: int) -> None:
    """Take out what was appended before a number, but for the message with the state, at ``seq``."""
    names, events = stream.names, store.names.events_stream
    # A mark that follows the number says nothing of what lies between.
    found = mark_before(state.appended_marks, first)
    begin = found.seq if found is not None else None
    if begin is None:
        ahead = store.every(events, names.events)
        begin = next(
            (one.seq for one in ahead if one.seq >= seq or batch_in(one.payload).last >= first),
            None,
        )
    if begin is not None:
        store.purge(events, names.events, seq=begin)


# Folding


def _fold(store: Store, stream: NatsStream, through: int, now_ms: int) -> None:
    """Keep what the open runs said through a number; done again it is the same."""
    last = read_last(store, stream, now_ms)
    runs = list(last.state.runs)
    folds = {run_id: kept_fold(fold_of(store, stream, run_id)) for run_id in runs}
    touched: dict[str, RunFold] = {}
    for record in records_between(store, stream, last, last.state.first - 1, through):
        fold = folds.get(record.run_id or "")
        if fold is not None and record.run_id is not None:
            apply_once(fold, record)
            touched[record.run_id] = fold
    for run_id, fold in touched.items():
        _keep_fold(store, stream, run_id, encode_state(fold.state))


def _keep_fold(store: Store, stream: NatsStream, run_id: str, folded: bytes) -> None:
    packed = zlib.compress(folded, 1)
    subject = stream.names.folds + token(run_id)
    parts = [packed[at : at + _CHUNK_BYTES] for at in range(0, len(packed), _CHUNK_BYTES)]
    posts = [Post(subject, part, ttl=IDLE_SECONDS) for part in parts]
    posts[0] = posts[0]._replace(replaces=True)
    store.publish(*posts)


def fold_of(store: Store, stream: NatsStream, run_id: str) -> bytes | None:
    """Return what was kept of a run whose first events are gone."""
    subject = stream.names.folds + token(run_id)
    packed = b"".join(found.payload for found in store.every(store.names.events_stream, subject))
    return zlib.decompress(packed) if packed else None


def folds_of(store: Store, stream: NatsStream) -> dict[str, bytes]:
    """Return what was kept of any run, by the token of its id."""
    parts: dict[str, list[bytes]] = {}
    for found in store.every(store.names.events_stream, stream.names.folds + "*"):
        parts.setdefault(found.subject.rpartition(".")[2], []).append(found.payload)
    return {name: zlib.decompress(b"".join(packed)) for name, packed in parts.items()}


# Forgetting


def has_much_to_forget(state: State) -> bool:
    """Whether so many runs have ended, or keys were used, that the oldest are to be forgotten."""
    return state.ended > 2 * ENDED_RUNS_KEPT or state.known > 2 * KEYS_KEPT


def forget(store: Store, stream: NatsStream, now_ms: int) -> None:
    """Forget the oldest ended runs and idempotency keys of a log beyond what is kept."""
    events = store.names.events_stream
    store.purge(events, stream.names.known + "*", keep=KEYS_KEPT)
    runs = store.every(events, stream.names.runs + "*")
    ended = [found.seq for found in runs if records.decode(found.payload, RunRecord).end]
    store.remove(events, ended[:-ENDED_RUNS_KEPT])

    def make(state: State) -> Change:
        return Change(
            msgspec.structs.replace(
                state,
                ended=min(state.ended, ENDED_RUNS_KEPT),
                known=min(state.known, KEYS_KEPT),
            )
        )

    change(store, stream, now_ms, make)

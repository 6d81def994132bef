"""Asking JetStream about runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from catenary.eventlog.entry import Entry
from catenary.eventlog.nats import records
from catenary.eventlog.nats.changing import Change, change
from catenary.eventlog.nats.errors import Conflict
from catenary.eventlog.nats.keeping import fold_of, folds_of, look_at
from catenary.eventlog.nats.names import token
from catenary.eventlog.nats.posts import Post
from catenary.eventlog.nats.reading import read_last, records_between
from catenary.eventlog.nats.records import Report, RunNote, RunRecord, stored_run
from catenary.eventlog.nats.state import Held, State, batch_in, known_in
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.overdue import CANCEL_PATIENCE_MS
from catenary.eventlog.shared.folding import apply_once, fold_waiting, kept_fold
from catenary.eventlog.shared.runs import Cancel, RunStart, StoredRun
from catenary.eventlog.stream import HeldRun
from catenary.fold import RunFold, RunState
from catenary.position import Position

CLAIM_MS = 60_000
"""For so long an ended run is one process's to report."""

RunKey = tuple[str, str]
"""The log's id and the run's."""


def state_of(store: Store, stream: NatsStream) -> State | None:
    """Return the state of a log as its leader has it; None if there is no such log."""
    return states_of(store, [stream])[0]


def states_of(store: Store, streams: Sequence[NatsStream]) -> list[State | None]:
    """Return the states of logs as their leader has them."""
    asked = [stream.names.events for stream in streams]
    states: list[State | None] = []
    for stream, found in zip(streams, store.lasts(store.names.events_stream, asked), strict=True):
        if found is None:
            states.append(None)
            continue
        known = known_in(found.seq, batch_in(found.payload))
        stream.see(known)
        states.append(known.state)
    return states


def runs_of(store: Store, stream: NatsStream) -> list[StoredRun]:
    """Return every run that a log knows, oldest first."""
    state = state_of(store, stream)
    if state is None:
        return []
    every = store.every(store.names.events_stream, stream.names.runs + "*")
    found = [records.decode(one.payload, RunRecord) for one in every]
    folds = folds_of(store, stream) if found else {}
    runs = [
        stored_run(record, state.runs.get(record.run_id), folds.get(token(record.run_id)))
        for record in found
    ]
    return sorted(runs, key=lambda run: run.info.first_seq)


def some_runs(store: Store, streams: Sequence[tuple[NatsStream, str]]) -> list[StoredRun | None]:
    """Return runs by log and id; None for those that are not known."""
    events = store.names.events_stream
    asked = [stream.names.runs + token(run_id) for stream, run_id in streams]
    logs = list(dict.fromkeys(stream for stream, _ in streams))
    states = dict(zip(logs, states_of(store, logs), strict=True))
    runs: list[StoredRun | None] = []
    for (stream, run_id), found in zip(streams, store.lasts(events, asked), strict=True):
        state = states[stream]
        if found is None or state is None:
            runs.append(None)
            continue
        record = records.decode(found.payload, RunRecord)
        runs.append(stored_run(record, state.runs.get(run_id), fold_of(store, stream, run_id)))
    return runs


def has_run(store: Store, stream: NatsStream, run_id: str) -> bool:
    """Return whether a log has, or had, a run."""
    return store.last(store.names.events_stream, stream.names.runs + token(run_id)) is not None


def logs_with_run(store: Store, run_id: str) -> list[str]:
    """Return the logs that have a run of this id: a look at every log, for operators."""
    every = store.every(store.names.events_stream, store.names.every("r", "*", token(run_id)))
    return [records.decode(found.payload, RunRecord).log_id for found in every]


def logs_of(store: Store, holder: str = "*") -> dict[str, set[str]]:
    """Return the processes that may hold runs, with the logs; of one process or of all."""
    found: dict[str, set[str]] = {}
    for one in store.every(store.names.values_stream, store.names.every("o", holder, "*")):
        name = one.subject.split(".")[-2]
        found.setdefault(name, set()).add(records.decode(one.payload, str))
    return found


def logs_with_leases(store: Store) -> set[str]:
    """Return the logs where runs may be open that live by their own events."""
    every = store.every(store.names.values_stream, store.names.every("t", "*", "l"))
    return {records.decode(found.payload, records.Due).log_id for found in every}


# Reporting


def take_ended(
    store: Store, stream_of: Callable[[str], NatsStream], holder: str, limit: int, now_ms: int
) -> list[RunKey]:
    """Take ended runs to report, for a while, in the order of their ends."""
    notes = [
        records.decode(found.payload, RunNote)
        for found in store.every(store.names.events_stream, store.names.every("n", "*", "*"))
    ]
    taken: list[RunKey] = []
    for note in sorted(notes, key=lambda note: (note.at, note.seq)):
        if len(taken) >= limit:
            break
        names, run = stream_of(note.log_id).names, token(note.run_id)
        subject = names.reports + run
        if not _take(store, subject, holder, now_ms):
            continue
        if store.last(store.names.events_stream, names.ends + run) is None:
            # Somebody has reported it since the notes were read.
            store.purge(store.names.values_stream, subject)
            continue
        taken.append((note.log_id, note.run_id))
    return taken


def _take(store: Store, subject: str, holder: str, now_ms: int) -> bool:
    own = records.encode(Report(holder, now_ms + CLAIM_MS))
    expected = 0
    while True:
        try:
            store.publish(Post(subject, own, expected=expected, ttl=CLAIM_MS // 1000))
        except Conflict:
            found = store.last(store.names.values_stream, subject)
            if found is not None:
                known = records.decode(found.payload, Report)
                if known.until > now_ms:
                    return known.holder == holder
            expected = found.seq if found is not None else 0
        else:
            return True


def mark_ended(store: Store, stream: NatsStream, run_id: str) -> None:
    """Record that an ended run was reported."""
    name = token(run_id)
    store.purge(store.names.events_stream, stream.names.ends + name)
    store.purge(store.names.values_stream, stream.names.reports + name)


# Changing what is known of runs


def cancel(
    store: Store, stream: NatsStream, run_id: str, why: tuple[str | None, str | None], now_ms: int
) -> tuple[bool, dict[str, str], Cancel]:
    """
    Store a request to cancel a run and all that it began.

    Returns whether the run is open, and who holds what is to be cancelled.
    """
    asked: Cancel = (now_ms, *why)
    holders: dict[str, str] = {}

    def make(state: State) -> Change | None:
        holders.clear()
        if run_id not in state.runs:
            return None
        runs = dict(state.runs)
        for one in _with_children(runs, run_id):
            held = runs[one]
            holders[one] = held.holder
            if held.cancel is None:
                runs[one] = msgspec.structs.replace(held, cancel=asked)
        if runs == state.runs:
            return None
        return Change(msgspec.structs.replace(state, runs=runs))

    known = state_of(store, stream)
    if known is not None and run_id in known.runs:
        look_at(store, stream, "x", now_ms + CANCEL_PATIENCE_MS)
        change(store, stream, now_ms, make)
    return bool(holders), holders, asked


def _with_children(runs: dict[str, Held], run_id: str) -> Iterable[str]:
    children: dict[str | None, list[str]] = {}
    for name, held in runs.items():
        children.setdefault(held.parent, []).append(name)
    asked = [run_id]
    found = dict.fromkeys(asked)
    while asked:
        # Taken out, so that runs which name each other are asked once.
        for child in children.pop(asked.pop(), ()):
            if child not in found:
                found[child] = None
                asked.append(child)
    return found


def adopt(
    store: Store,
    stream: NatsStream,
    holder: str,
    run_ids: Sequence[str],
    now_ms: int,
    *,
    may_adopt: Callable[[Held], bool],
) -> list[StoredRun | None]:
    """Hold open runs from now on, those that ``may_adopt`` allows; returns them as they are then."""

    def make(state: State) -> Change | None:
        runs = dict(state.runs)
        for run_id in run_ids:
            held = runs.get(run_id)
            if held is not None and held.holder != holder and may_adopt(held):
                runs[run_id] = msgspec.structs.replace(held, holder=holder)
        return Change(msgspec.structs.replace(state, runs=runs)) if runs != state.runs else None

    if state_of(store, stream) is not None:
        change(store, stream, now_ms, make)
    found = some_runs(store, [(stream, run_id) for run_id in run_ids])
    for stored in found:
        if stored is not None and stored.info.is_open:
            stream.starts[stored.info.run_id] = start_of(stored)
    return found


def start_of(stored: StoredRun) -> RunStart:
    """Return what the start of a run said."""
    info = stored.info
    return RunStart(
        started_at=info.started_at,
        user_id=stored.user_id,
        thread_id=info.thread_id,
        agent_name=info.agent_name,
        parent_run_id=info.parent_run_id,
        lease=info.lease,
    )


def fold(
    store: Store | None,
    stream: NatsStream,
    run: HeldRun,
    head: Position,
    waiting: Iterable[Entry],
    now_ms: int,
) -> RunState:
    """Fold a run through ``head``, then what waits. Without a store all of it waits."""
    folded = RunFold()
    if store is None:
        return fold_waiting(folded, waiting, head)
    folded = kept_fold(fold_of(store, stream, run.run_id))
    last = read_last(store, stream, now_ms)
    after = max(folded.last_seq, run.first_seq - 1)
    for record in records_between(store, stream, last, after, head.seq):
        if record.run_id == run.run_id:
            apply_once(folded, record)
    return fold_waiting(folded, waiting, head)

"""
Compaction and erasing in JetStream, where no message can be changed in place.

What is rewritten stands on a subject of its own, under the name of a
generation: all numbers from the first one on through ``State.through``; what
follows stands where it was appended. A state names the generation that counts.
So the steps are: write the new messages, of which nobody knows; change the
state, from which moment everybody reads them; take the former ones out of the
stream. A process that dies before the second step leaves messages that nobody
reads, and they go with the next rewriting. One that dies before the third
leaves the former ones, and the note that was made before tells somebody to
take them out. A reader that meets missing messages looks at the state again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import msgspec

from catenary.errors import LogUnavailable
from catenary.eventlog.batch import in_bounds, pack_entries, pack_numbered
from catenary.eventlog.nats import records
from catenary.eventlog.nats.changing import IDLE_SECONDS, Change, change
from catenary.eventlog.nats.ends import RunChanges, scrubbed
from catenary.eventlog.nats.errors import Conflict
from catenary.eventlog.nats.keeping import take_out_appended
from catenary.eventlog.nats.marks import Mark, cut_before, with_mark
from catenary.eventlog.nats.names import token
from catenary.eventlog.nats.posts import Post
from catenary.eventlog.nats.reading import read_last, records_between
from catenary.eventlog.nats.records import Due, RunEnd, RunRecord
from catenary.eventlog.nats.state import Batch, State, batch_in, encode
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.retention import erased_entry, tombstone
from catenary.eventlog.shared.runs import RunStart
from catenary.record import Record, merge_adjacent

_ATTEMPTS = 20
_RUNS_AT_ONCE = 400
_PATIENCE_MS = 60_000
"""After so long somebody else takes out what a rewriting has left over."""


class _Rewritten:
    """Messages of a generation in the making."""

    def __init__(self, store: Store, stream: NatsStream, generation: str, last_seq: int) -> None:
        self._store = store
        self._subject = stream.names.rewritten + generation
        self._last_seq = last_seq
        self.batches: list[tuple[int, Batch]] = []

    def write(self, found: Iterable[Record]) -> None:
        """Store records; raises ``Conflict`` if somebody else writes this generation too."""
        for part in in_bounds(found):
            first, last = part[0], part[-1]
            row = pack_numbered(part)
            batch = Batch(
                first.epoch,
                first.first_seq,
                last.seq,
                first.at,
                len(part),
                sum(record.size_bytes for record in part),
                row.body,
            )
            post = Post(self._subject, encode(batch), expected=self._last_seq, ttl=IDLE_SECONDS)
            self._last_seq = self._store.publish(post)
            self.batches.append((self._last_seq, batch))

    def switched(self, state: State, generation: str) -> State:
        """Return a state by which readers find these batches in the place of others."""
        begin, through = self.batches[0][1].first, self.batches[-1][1].last
        before = cut_before(state.marks, state.end, begin)
        after = cut_before(state.marks, state.end, through + 1)
        events, size = before.events, before.size_bytes
        marks: list[Mark] = []
        if generation == state.generation:
            marks += [mark for mark in state.marks if mark.number < begin]
        for seq, batch in self.batches:
            marks = with_mark(marks, Mark(batch.first, seq, events, size))
            events += batch.events
            size += batch.size_bytes
        less = after.events - events, after.size_bytes - size
        for mark in state.marks:
            if mark.number > through:
                moved = Mark(
                    mark.number, mark.seq, mark.events - less[0], mark.size_bytes - less[1]
                )
                marks = with_mark(marks, moved)
        return msgspec.structs.replace(
            state,
            generation=generation,
            through=through,
            events=state.events - less[0],
            size_bytes=state.size_bytes - less[1],
            marks=marks,
        )


def compact(store: Store, stream: NatsStream, now_ms: int) -> None:
    """
    Merge what ended runs said, up to the oldest open run; what was merged before stays.

    Somebody who does the same at the same time goes on alone.
    """
    last = read_last(store, stream, now_ms)
    state = last.state
    through = state.head if state.oldest_open is None else state.oldest_open - 1
    after = max(state.through, state.first - 1)
    # What is taken out now must not be what is written.
    former = "" if state.is_rewritten_gone else state.generation
    new = list(records_between(store, stream, last, max(after, stream.looked_through), through))
    is_worth_it = len(list(merge_adjacent(new))) < len(new)
    stream.looked_through = through
    if not is_worth_it:
        return
    generation = former or secrets.token_hex(4)
    before = store.last(store.names.events_stream, stream.names.rewritten + generation)
    if before is not None and batch_in(before.payload).last > state.through:
        # Somebody wrote it and did not come to tell: it is written anew, under another name.
        after, generation, before = state.first - 1, secrets.token_hex(4), None
    found = list(records_between(store, stream, last, after, through))
    if not found or found[0].first_seq > after + 1:
        return
    rewritten = _Rewritten(store, stream, generation, before.seq if before is not None else 0)
    try:
        rewritten.write(merge_adjacent(found))
    except Conflict:
        return
    note = _note(store, stream, now_ms)
    if _switch(store, stream, state, rewritten, generation, now_ms):
        known = read_last(store, stream, now_ms).known
        state = msgspec.structs.replace(known.state, marks=known.marks)
        take_out_appended(store, stream, state, state.through + 1, known.seq)
    store.remove(store.names.values_stream, [note])


def _note(store: Store, stream: NatsStream, now_ms: int) -> int:
    """Let somebody take out what is left over, should this process not come to it."""
    due = records.encode(Due(stream.log_id, now_ms + _PATIENCE_MS))
    return store.publish(Post(stream.names.dues + "g", due))


def _switch(
    store: Store,
    stream: NatsStream,
    was: State,
    rewritten: _Rewritten,
    generation: str,
    now_ms: int,
    *,
    erasures: int = 0,
) -> bool:
    """Let readers find what was rewritten; False if somebody else has rewritten meanwhile."""
    is_done = False

    def make(state: State) -> Change | None:
        nonlocal is_done
        is_done = state.rewriting == was.rewriting
        if not is_done:
            return None
        after = rewritten.switched(state, generation)
        return Change(msgspec.structs.replace(after, erasures=state.erasures + erasures))

    change(store, stream, now_ms, make)
    if not is_done:
        # Nobody reads it, and it may hold what was erased meanwhile.
        store.shred(store.names.events_stream, [seq for seq, _ in rewritten.batches])
    return is_done


def collect(store: Store, stream: NatsStream, now_ms: int) -> None:
    """
    Overwrite and take out what stands in rewritten batches too, and what does not count.

    The state says so first: a process that has written and not yet told of it,
    however long ago, then finds that it was in vain.
    """

    def fence(state: State) -> Change:
        return Change(msgspec.structs.replace(state, collected=state.collected + 1))

    change(store, stream, now_ms, fence)
    known = read_last(store, stream, now_ms).known
    state, events, names = known.state, store.names.events_stream, stream.names
    current = names.rewritten + state.generation
    gone = [
        found.seq
        for found in store.every(events, names.rewritten + "*")
        if found.subject != current
    ]
    for found in store.every(events, names.events):
        if found.seq == known.seq or batch_in(found.payload).last > state.through:
            break
        gone.append(found.seq)
    store.shred(events, gone)


# Erasing


def erase_thread(store: Store, stream: NatsStream, thread_id: str, holder: str, now_ms: int) -> int:
    """Put tombstones in the place of a thread's records, and overwrite those; returns how many."""
    _end_runs_of(store, stream, thread_id, holder, now_ms)
    note = _note(store, stream, now_ms)
    for _ in range(_ATTEMPTS):
        last = read_last(store, stream, now_ms)
        state = last.state
        found = list(records_between(store, stream, last, state.first - 1, state.head))
        kept = [
            tombstone(record, stream.log_id) if record.thread_id == thread_id else record
            for record in found
        ]
        count = sum(one.type != other.type for one, other in zip(kept, found, strict=True))
        if not count:
            break
        generation = secrets.token_hex(4)
        rewritten = _Rewritten(store, stream, generation, 0)
        rewritten.write(merge_adjacent(kept))
        if _switch(store, stream, state, rewritten, generation, now_ms, erasures=1):
            break
    else:
        raise LogUnavailable(f"{stream.log_id!r} changes all the time; ask again to erase it")
    # Also what somebody left who died in the middle of it.
    collect(store, stream, now_ms)
    store.remove(store.names.values_stream, [note])
    return count


def _end_runs_of(
    store: Store, stream: NatsStream, thread_id: str, holder: str, now_ms: int
) -> None:
    """Fence the thread's runs first, so that nothing of them comes after the erasing."""
    events, names = store.names.events_stream, stream.names
    found = [
        records.decode(one.payload, RunRecord) for one in store.every(events, names.runs + "*")
    ]
    of_thread = {
        record.run_id: msgspec.structs.replace(
            record, start=RunStart(started_at=record.start.started_at, thread_id=thread_id)
        )
        for record in found
        if record.start.thread_id == thread_id
    }
    if not of_thread:
        return

    def end_some(state: State) -> Change | None:
        runs = RunChanges(stream, state, holder, now_ms)
        for run_id in [run_id for run_id in state.runs if run_id in of_thread][:_RUNS_AT_ONCE]:
            held = state.runs[run_id]
            runs.close(of_thread[run_id], RunEnd("", held.last_seq, held.last_at))
        if not runs.ended:
            return None
        after = msgspec.structs.replace(state, runs=runs.open, ended=state.ended + runs.ended)
        return Change(after, extras=list(runs.extras.values()))

    while change(store, stream, now_ms, end_some) is not None:
        continue
    ended = [[scrubbed(names, record)] for record in of_thread.values() if record.end]
    store.publish_all(ended)
    for run_id in of_thread:
        for kind in (names.folds, names.ends):
            _shred(store, events, kind + token(run_id))


def erase_all(store: Store, stream: NatsStream, now_ms: int) -> int:
    """Overwrite all of a log but its numbering; an event says so. Returns how many there were."""
    count = 0
    ((events, size, body),) = pack_entries([erased_entry(stream.log_id, now_ms)])

    def make(state: State) -> Change:
        nonlocal count
        count = state.retained[0]
        number = state.head + 1
        batch = Batch(state.epoch, number, number, now_ms, events, size, body)
        after = State(
            state.epoch,
            state.life,
            head=number,
            first=number,
            former=state.former,
            events=events,
            size_bytes=size,
            dropped=number,
            through=state.head,
            erasures=state.erasures + 1,
            producers=state.producers,
        )
        return Change(after, [batch])

    note = _note(store, stream, now_ms)
    change(store, stream, now_ms, make)
    collect(store, stream, now_ms)
    names = stream.names
    for kind in (names.runs, names.ends, names.folds, names.known):
        _shred(store, store.names.events_stream, kind + "*")
    _shred(store, store.names.values_stream, names.commands + "*")
    store.remove(store.names.values_stream, [note])
    return count


def _shred(store: Store, stream: str, subject: str) -> None:
    store.shred(stream, [found.seq for found in store.every(stream, subject)])

"""Retention by age: what is older than is kept goes, log by log."""

from __future__ import annotations

from catenary.eventlog.model import Retention
from catenary.eventlog.nats.keeping import drop
from catenary.eventlog.nats.reading import Last, batches_after
from catenary.eventlog.nats.state import State, batch_in, known_in
from catenary.eventlog.nats.store import PAGE_BYTES, Store
from catenary.eventlog.nats.stream import NatsStream

_AT_ONCE = 20
"""So many pages are looked at in one go."""

_AGAIN_MS = 60_000


class Aging:
    """
    A walk along the stream of the events, which has the oldest first.

    Each message is looked at once, when it is old enough to go. It knows only how
    far it came: another process that goes on begins anew.
    """

    def __init__(self, retention: Retention) -> None:
        self._age_ms = int(retention.age * 1000)
        self._reached = {"e": 1, "z": 1}
        self._spared: dict[str, int] = {}
        """The logs of which an open run needs something old, and when to look again."""

    def look(self, store: Store, now_ms: int) -> None:
        """Let go what has become too old."""
        before = now_ms - self._age_ms
        logs = self._old_logs(store, "e", before) | self._old_logs(store, "z", before)
        logs |= {name for name, at in self._spared.items() if at <= now_ms}
        for name in logs:
            self._spared.pop(name, None)
            # Its id may be long, and is of no account here.
            stream = NatsStream(name, store.names.of_token(name))
            if not _drop_old(store, stream, before, now_ms):
                self._spared[name] = now_ms + _AGAIN_MS

    def _old_logs(self, store: Store, kind: str, before: int) -> set[str]:
        found: set[str] = set()
        rest = ("*",) if kind == "e" else ("*", "*")
        subject = store.names.every(kind, *rest)
        for _ in range(_AT_ONCE):
            messages, pending = store.batch(
                store.names.events_stream, subject, self._reached[kind], limit_bytes=PAGE_BYTES
            )
            for message in messages:
                if batch_in(message.payload).at >= before:
                    return found
                found.add(message.subject.split(".")[2])
                self._reached[kind] = message.seq + 1
            if not messages or not pending:
                break
        return found


def _drop_old(store: Store, stream: NatsStream, before: int, now_ms: int) -> bool:
    """Drop what is older of one log; False if an open run needs some of it."""
    found = store.last(store.names.events_stream, stream.names.events)
    if found is None:
        return True
    batch = batch_in(found.payload)
    last = Last(known_in(found.seq, batch), batch)
    young = _first_young(store, stream, last, before)

    def first_of(state: State) -> int:
        return young if state.oldest_open is None else min(young, state.oldest_open)

    drop(store, stream, first_of, now_ms)
    return first_of(last.state) == young


def _first_young(store: Store, stream: NatsStream, last: Last, before: int) -> int:
    state = last.state
    for batch in batches_after(store, stream, state, state.first - 1, PAGE_BYTES):
        if batch.at >= before:
            return batch.first
        for record in batch.records():
            if record.at >= before:
                return record.first_seq
    return state.head + 1

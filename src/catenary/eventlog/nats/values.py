"""Claimed messages, values that expire, and what was seen, in JetStream: the last of each counts."""

from __future__ import annotations

from collections.abc import Callable

from catenary.eventlog.commands import WINDOW_COMMANDS, WINDOW_SECONDS
from catenary.eventlog.model import Claim, ClaimState
from catenary.eventlog.nats import records
from catenary.eventlog.nats.errors import Conflict
from catenary.eventlog.nats.names import token
from catenary.eventlog.nats.posts import Found, Post
from catenary.eventlog.nats.reading import read_last
from catenary.eventlog.nats.records import Claimed, Value
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.position import Position

_WINDOW_MS = int(WINDOW_SECONDS * 1000)
_TRIM_EVERY = 100
"""Claims beyond the window's number are dropped each time so many were made by one connection."""


def claim(
    store: Store,
    stream: NatsStream,
    command_id: str,
    digest: bytes,
    holder: str,
    now_ms: int,
    is_living: Callable[[Store, str], bool],
) -> Claim:
    """Claim an id, or say what became of it; ``is_living`` knows which processes there are."""
    subject = stream.names.commands + token(command_id)
    own = records.encode(Claimed(now_ms, holder, digest))
    ttl = int(WINDOW_SECONDS) + 3600
    expected = 0
    while True:
        try:
            seq = store.publish(Post(subject, own, expected=expected, ttl=ttl))
        except Conflict:
            found = _within_window(store, stream, subject)
            known = records.decode(found.payload, Claimed) if found is not None else None
            if known is not None and now_ms - known.at < _WINDOW_MS:
                return _claimed(known, digest, holder, lambda name: is_living(store, name))
            expected = found.seq if found is not None else 0
        else:
            if seq % _TRIM_EVERY == 0:
                _drop_old(store, stream)
            return Claim(ClaimState.NEW)


def _within_window(store: Store, stream: NatsStream, subject: str) -> Found | None:
    """Return a claim, unless so many came later that it is to be forgotten."""
    _drop_old(store, stream)
    return store.last(store.names.values_stream, subject)


def _drop_old(store: Store, stream: NatsStream) -> None:
    store.purge(store.names.values_stream, stream.names.commands + "*", keep=WINDOW_COMMANDS)


def _claimed(known: Claimed, digest: bytes, holder: str, is_living: Callable[[str], bool]) -> Claim:
    if known.digest != digest:
        return Claim(ClaimState.CONFLICT)
    if known.reply is not None:
        return Claim(ClaimState.DONE, known.reply)
    if known.holder == holder:
        return Claim(ClaimState.HELD)
    return Claim(ClaimState.ELSEWHERE if is_living(known.holder) else ClaimState.INTERRUPTED)


def reclaim(store: Store, stream: NatsStream, command_id: str, holder: str) -> None:
    """Let this process hold an interrupted id."""
    _update(store, stream, command_id, lambda known: Claimed(known.at, holder, known.digest))


def finish(store: Store, stream: NatsStream, command_id: str, reply: bytes) -> None:
    """Keep the reply of a claimed id."""
    _update(
        store,
        stream,
        command_id,
        lambda known: Claimed(known.at, known.holder, known.digest, reply),
    )


def _update(
    store: Store, stream: NatsStream, command_id: str, make: Callable[[Claimed], Claimed]
) -> None:
    subject = stream.names.commands + token(command_id)
    while (found := store.last(store.names.values_stream, subject)) is not None:
        known = records.decode(found.payload, Claimed)
        post = Post(
            subject,
            records.encode(make(known)),
            expected=found.seq,
            ttl=int(WINDOW_SECONDS) + 3600,
        )
        try:
            store.publish(post)
        except Conflict:
            continue
        return


def put(store: Store, key: str, value: bytes, ttl: float, now_ms: int) -> None:
    """Keep a value for ``ttl`` seconds."""
    kept = records.encode(Value(now_ms + int(ttl * 1000), value))
    store.publish(Post(store.names.value(key), kept, ttl=int(ttl) + 1))


def get(store: Store, key: str, now_ms: int) -> bytes | None:
    """Return a value that has not expired."""
    found = store.last(store.names.values_stream, store.names.value(key))
    return _living(found, now_ms)


def take(store: Store, key: str, now_ms: int) -> bytes | None:
    """Return a value that has not expired, and remove it: one caller gets it."""
    subject = store.names.value(key)
    while True:
        found = store.last(store.names.values_stream, subject)
        if found is None or not found.payload:
            return None
        try:
            # Put in its place by whoever is first; soon nothing is left of it.
            store.publish(Post(subject, b"", expected=found.seq, ttl=1))
        except Conflict:
            continue
        return _living(found, now_ms)


def _living(found: Found | None, now_ms: int) -> bytes | None:
    if found is None or not found.payload:
        return None
    value = records.decode(found.payload, Value)
    return value.value if value.ends_at > now_ms else None


def note_seen(store: Store, stream: NatsStream, place: Position, now_ms: int) -> None:
    """Keep the furthest place that was acknowledged, and tell every process that listens."""
    state = read_last(store, stream, now_ms).state
    if place.epoch != state.epoch or place.seq > state.head:
        return
    while True:
        found = store.last(store.names.values_stream, stream.names.seen)
        known = Position.parse(found.payload.decode()) if found is not None else None
        if known is not None and known.epoch == place.epoch and known.seq >= place.seq:
            return
        expected = found.seq if found is not None else 0
        try:
            store.publish(Post(stream.names.seen, str(place).encode(), expected, 7 * 24 * 3600))
        except Conflict:
            continue
        store.tell(stream.names.live, b"s" + str(place).encode())
        return


def seen(store: Store, stream: NatsStream) -> Position | None:
    """Return the place that was kept."""
    found = store.last(store.names.values_stream, stream.names.seen)
    return Position.parse(found.payload.decode()) if found is not None else None

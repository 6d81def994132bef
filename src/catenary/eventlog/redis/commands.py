"""Claimed messages, values that expire, and what was seen, in Redis."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

from catenary.eventlog.commands import WINDOW_COMMANDS, WINDOW_SECONDS
from catenary.eventlog.model import Claim, ClaimState
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.reading import LogAt
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stream import RedisStream
from catenary.position import Position

_WINDOW_MS = int(WINDOW_SECONDS * 1000)
_SCAN_COUNT = 1000


def claim(
    store: Store,
    log: LogAt,
    command_id: str,
    digest: bytes,
    holder: str,
    is_living: Callable[[Store, str], bool],
) -> Claim:
    """Claim an id, or say what became of it; ``is_living`` knows which processes there are."""
    answer = _claim(store, log, "claim", command_id, digest, holder)
    state = answer[0].decode()
    if state == "new":
        return Claim(ClaimState.NEW)
    if state == "conflict":
        return Claim(ClaimState.CONFLICT)
    if len(answer) > 2:
        return Claim(ClaimState.DONE, answer[2])
    by = answer[1].decode()
    if by == holder:
        return Claim(ClaimState.HELD)
    return Claim(ClaimState.ELSEWHERE if is_living(store, by) else ClaimState.INTERRUPTED)


def reclaim(store: Store, log: LogAt, command_id: str, holder: str) -> None:
    """Let this process hold an interrupted id."""
    _claim(store, log, "again", command_id, b"", holder)


def _claim(
    store: Store, log: LogAt, what: str, command_id: str, digest: bytes, holder: str
) -> list[bytes]:
    answer: list[bytes] = store.call(
        log.bucket,
        "claim",
        [log.keys.commands],
        log.now,
        what,
        command_id,
        digest.hex(),
        holder,
        _WINDOW_MS,
        WINDOW_COMMANDS,
    )
    return answer


def finish(store: Store, log: LogAt, command_id: str, reply: bytes) -> None:
    """Keep the reply of a claimed id."""
    store.call(log.bucket, "finish", [log.keys.commands], command_id, reply)


def put(store: Store, keys: Keys, key: str, value: bytes, ttl: float, now: str) -> None:
    """Keep a value for ``ttl`` seconds."""
    name = keys.of_name("v", key)
    store.call(keys.bucket_of(key), "keep", [name], now, value, max(1, int(ttl * 1000)))


def get(store: Store, keys: Keys, key: str, now: str) -> bytes | None:
    """Return a value that has not expired."""
    return _value(store, keys, key, now, "get")


def take(store: Store, keys: Keys, key: str, now: str) -> bytes | None:
    """Return a value that has not expired, and remove it."""
    return _value(store, keys, key, now, "take")


def _value(store: Store, keys: Keys, key: str, now: str, what: str) -> bytes | None:
    name = keys.of_name("v", key)
    found: bytes | None = store.call(keys.bucket_of(key), "take", [name], now, what)
    return found


def note_seen(store: Store, stream: RedisStream, place: Position) -> None:
    """Keep the furthest place that was acknowledged, and tell every process that listens."""
    keys = stream.names
    store.call(stream.bucket, "seen", keys[:1], keys.channel, *place)


def all_logs(store: Store, keys: Keys) -> list[str]:
    """Return the ids of all logs: a walk over every key, for operators."""
    found: set[str] = set()
    for link in store.links():
        cursor = b"0"
        while True:
            cursor, names = link.command(
                "SCAN", cursor, "MATCH", keys.every_meta, "COUNT", _SCAN_COUNT
            )
            found.update(unquote(name.decode().rpartition(":")[2]) for name in names)
            if cursor == b"0":
                break
    return sorted(found)

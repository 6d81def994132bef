"""Who lives: the processes that share a log, by when they last said so."""

from __future__ import annotations

import time
from typing import NamedTuple

from catenary.errors import LogUnavailable
from catenary.eventlog.nats import records
from catenary.eventlog.nats.errors import Conflict
from catenary.eventlog.nats.posts import Post
from catenary.eventlog.nats.store import Store

_KEPT = 10
"""A lease that is over is listed for so many times its length, and then forgotten."""

DUTY_MS = 3000
"""Whoever has the duty loses it after so long without a sweep."""


class Living(NamedTuple):
    """The processes that live, and how far the store's clock is ahead of this one, in ms."""

    alive: frozenset[str]
    ahead_ms: int


def renew(store: Store, holder: str, seconds: float) -> Living:
    """
    Renew a process's lease, and see who lives by the store's clock.

    Raises:
        LogUnavailable: The store cannot now, or only an old list of who lives can be had.
    """
    own = store.names.leases + holder
    before = time.time()
    post = Post(own, records.encode(seconds), ttl=int(seconds * _KEPT) + 1)
    seq = store.publish(post)
    after = time.time()
    found = list(store.every(store.names.leases_stream, store.names.leases + "*"))
    now = next((one.stored_at for one in found if one.subject == own and one.seq >= seq), None)
    if now is None:
        raise LogUnavailable(f"{store.where}: a replica is behind. It will be tried again")
    alive = frozenset(
        one.subject.removeprefix(store.names.leases)
        for one in found
        if now - one.stored_at <= records.decode(one.payload, float) * 1000
    )
    return Living(alive, now - int((before + after) * 500))


def end(store: Store, holder: str) -> None:
    """End a process's lease."""
    store.purge(store.names.leases_stream, store.names.leases + holder)


def take_duty(store: Store, holder: str, now_ms: int) -> bool:
    """Whether a process has the duty, for a while; ``now_ms`` by the store's clock."""
    names = store.names
    found = store.last(names.leases_stream, names.duty)
    is_free = found is None or now_ms - found.stored_at > DUTY_MS
    if not is_free and found is not None and found.payload != holder.encode():
        return False
    expected = found.seq if found is not None else 0
    try:
        store.publish(Post(names.duty, holder.encode(), expected=expected))
    except Conflict:
        return False
    return True

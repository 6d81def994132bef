"""
Changing a log: what its next message is made of, whoever makes it.

A change is one message, or several that are stored all or not at all, and is
stored only if the log's last message is the one that its writer knew. So
nobody sees a part of it, and a writer that dies leaves all of it or nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from catenary.errors import LogUnavailable
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.nats.errors import Conflict
from catenary.eventlog.nats.names import LogNames
from catenary.eventlog.nats.posts import Post
from catenary.eventlog.nats.state import (
    Batch,
    Known,
    State,
    batch_in,
    encode,
    known_in,
    stated,
    with_state,
)
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream

IDLE_SECONDS = 7 * 24 * 3600
"""After so long without an event a log's numbering and its runs are forgotten."""

CONFLICTS = 50
_PAUSE = 0.002


class Writing(NamedTuple):
    """What a writer goes by: the life of the store, and the time in ms since 1970."""

    life: str
    trusts_restart: bool
    at: int


class Change(NamedTuple):
    """
    What a log becomes.

    ``batches`` are new records, with the numbers that follow the head that was;
    ``extras`` are stored with them, all or none.
    """

    state: State
    batches: Sequence[Batch] = ()
    extras: Sequence[Post] = ()


def going_on(known: Known | None, writing: Writing, *, lost: bool) -> State:
    """
    Return the state that a log's next message goes on from.

    What was written in another life of the store, or is less than it was, may lack
    its end: then the numbering begins a new term.
    """
    if known is None:
        return State(new_epoch(), writing.life)
    state = msgspec.structs.replace(known.state, marks=known.marks)
    is_another_life = state.life != writing.life and not writing.trusts_restart
    if is_another_life or lost:
        state = state.in_new_term(new_epoch())
    if state.life != writing.life:
        state = msgspec.structs.replace(state, life=writing.life)
    return state


def posts_of(names: LogNames, known: Known | None, change: Change, at: int) -> list[Post]:
    """Return what is to be published for a change of what was known."""
    batches = list(change.batches)
    if batches:
        batches[-1] = with_state(batches[-1], change.state)
    else:
        batches.append(stated(change.state, at))
    # While a run is open its log stays, however long nothing is said.
    ttl = None if change.state.runs else IDLE_SECONDS
    posts = [Post(names.events, encode(batch), ttl=ttl) for batch in batches]
    posts[0] = posts[0]._replace(expected=known.seq if known is not None else 0)
    return [*change.extras, *posts]


def known_after(change: Change, seq: int) -> Known:
    """Return what is known of a log once a change was stored, its last message at ``seq``."""
    if not change.batches:
        return Known(seq, change.state, change.state.head + 1, 0, 0)
    last = change.batches[-1]
    return Known(seq, change.state, last.first, last.events, last.size_bytes)


def load(store: Store, streams: Sequence[NatsStream]) -> None:
    """Look what the store has of logs."""
    names = store.names.events_stream
    before = [stream.remembered() for stream in streams]
    found = store.lasts(names, [stream.names.events for stream in streams])
    for stream, last, was in zip(streams, found, before, strict=True):
        known = known_in(last.seq, batch_in(last.payload)) if last is not None else None
        stream.reload(known, was)


def current_life(store: Store, states: Sequence[State]) -> str:
    """Return the life that it is; where a log knows another one, the store is asked again."""
    life = store.life
    if any(state.life != life for state in states):
        life = store.read_life()
    return life


def change(
    store: Store,
    stream: NatsStream,
    at: int,
    make: Callable[[State], Change | None],
) -> Known | None:
    """
    Change a log, whoever else does; None if ``make`` finds nothing to change.

    ``make`` gets the state as it is and may be asked again, until what it makes
    is stored.

    Raises:
        LogUnavailable: The store cannot now. Whether it was done is not known.
    """
    for attempt in range(CONFLICTS):
        load(store, [stream])
        known = stream.known
        life = current_life(store, [known.state] if known is not None else [])
        writing = Writing(life, store.address.trust_restart, at)
        state = going_on(known, writing, lost=stream.is_lost)
        made = make(state)
        if made is None:
            if known is None or state.epoch == known.state.epoch:
                return None
            # That the numbering begins a new term must be told in any case.
            made = Change(state)
        posts = posts_of(stream.names, known, made, at)
        try:
            seq = store.publish(*posts)
        except Conflict:
            time.sleep(random.uniform(0, _PAUSE * attempt))  # noqa: S311 - spreads attempts
            continue
        stream.is_lost = False
        after = known_after(made, seq)
        stream.see(after)
        return after
    raise LogUnavailable(f"{stream.log_id!r} changes all the time. It will be tried again")

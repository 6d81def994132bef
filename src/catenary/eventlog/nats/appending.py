"""From batches of entries to messages that are stored only after the one before, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from catenary.errors import EventTooLarge, LogUnavailable, UsageError
from catenary.eventlog.batch import pack_entries
from catenary.eventlog.entry import Entry
from catenary.eventlog.nats import records
from catenary.eventlog.nats.changing import (
    CONFLICTS,
    Change,
    Writing,
    current_life,
    going_on,
    known_after,
    load,
    posts_of,
)
from catenary.eventlog.nats.ends import RunChanges
from catenary.eventlog.nats.errors import Conflict
from catenary.eventlog.nats.names import token
from catenary.eventlog.nats.posts import POSTS_LIMIT, Post
from catenary.eventlog.nats.records import RunRecord, UsedKey
from catenary.eventlog.nats.state import Batch, Known, State, Wrote
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.shared.appending import KNOWN_RUN, Appended, SharedAppending
from catenary.grammar import Step
from catenary.position import Position

PIECE_BYTES = 4 * 1024 * 1024
PIECE_EXTRAS = 400
"""So much of a batch is stored at once; a list that is whole is never cut."""

STATE_LIMIT_BYTES = 256 * 1024
MESSAGE_RESERVE_BYTES = STATE_LIMIT_BYTES + 64 * 1024

_PIECES = 1 << 12
"""More than a batch can have: its number and that of its piece make the producer's number."""


class Piece(NamedTuple):
    """Entries that are stored at once, and under which number."""

    entries: list[Entry]
    number: int


class Appending(SharedAppending):
    """A batch on its way into JetStream, piece by piece."""

    def __init__(
        self, stream: NatsStream, entries: Sequence[Entry], number: int, holder: str
    ) -> None:
        super().__init__(stream, entries, holder)
        self.stream = stream
        self._number = number * _PIECES
        self._piece: Piece | None = None
        self._made: tuple[Change, int] | None = None
        self.closed: dict[str, str] = {}
        """Runs of the next piece that are not this holder's, and why."""

    @property
    def piece(self) -> Piece:
        """What is to be stored next."""
        if self._piece is None:
            self._piece = Piece(first_piece(self.entries), self._number)
        return self._piece

    def lacking(self) -> list[str]:
        """Return the runs that end in this piece and of whose starts nothing is known here."""
        if self.is_over:
            return []
        begun = {entry.run_id for entry in self.piece.entries if entry.step is Step.START}
        return [
            entry.run_id
            for entry in self.piece.entries
            if entry.is_run_end
            and entry.run_id is not None
            and entry.run_id not in begun
            and entry.run_id not in self.stream.starts
        ]

    def posts(self, writing: Writing, producer: str, max_payload: int) -> list[Post]:
        """
        Return what stores the next piece; nothing if all is stored, or some is to be refused.

        Raises:
            LogUnavailable: A later batch of this producer is in the log: nobody waits for this one.
        """
        self._refuse_large(max_payload - MESSAGE_RESERVE_BYTES)
        while not self.is_over:
            known = self.stream.known
            state = going_on(known, writing, lost=self.stream.is_lost)
            piece = self.piece
            wrote = state.producers.get(producer) if self._number else None
            if wrote is not None and wrote.number >= piece.number:
                if wrote.number > piece.number:
                    raise LogUnavailable(f"a later batch of {self.stream.log_id!r} is in the log")
                self._take(Appended(piece.entries, wrote.epoch, wrote.first, wrote.at))
                continue
            self.closed = self._closed(piece.entries, state)
            if self.closed:
                # A repeat of what a run said before it ended is no refusal.
                return []
            made = self._change(piece, state, writing, producer)
            posts = posts_of(self.stream.names, known, made, writing.at)
            if len(posts) <= POSTS_LIMIT:
                self._made = made, writing.at
                return posts
            self._refuse_piece(UsageError("so many runs and keys cannot be appended as one list"))
        return []

    def took(self, seq: int, producer: str) -> None:
        """The piece was stored, its last message at ``seq``."""
        assert self._made is not None
        (change, at), self._made = self._made, None
        stream, state = self.stream, change.state
        stream.is_lost = False
        stream.see(known_after(change, seq))
        if self._number:
            stream.wrote[producer] = (self.piece.number, state.epoch)
        first = change.batches[0].first
        self._take(Appended(self.piece.entries, state.epoch, first, at))

    @property
    def starts(self) -> list[str]:
        """The runs that begin in the next piece."""
        entries = self.piece.entries
        return [entry.run_id for entry in entries if entry.step is Step.START and entry.run_id]

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of the next piece."""
        return [entry.key for entry in self.piece.entries if entry.key is not None]

    def take_out(self, closed: dict[str, str], keys: dict[str, UsedKey]) -> None:
        """Take out what is refused, and what was appended before under its key."""
        self.refuse(
            closed,
            {key: (used.digest, Position(used.epoch, used.seq)) for key, used in keys.items()},
        )
        self.closed, self._piece = {}, None

    def _take(self, appended: Appended) -> None:
        self.appended.append(appended)
        self.entries = self.entries[len(appended.entries) :]
        for entry in appended.entries:
            if entry.is_run_end and entry.run_id is not None:
                self.stream.starts.pop(entry.run_id, None)
        if self._number:
            self._number += 1
        self._piece = None

    def _refuse_piece(self, error: Exception) -> None:
        entries = self.piece.entries
        self.refused += [(entry, error) for entry in entries]
        self.entries = self.entries[len(entries) :]
        self._piece = None

    def _refuse_large(self, limit: int) -> None:
        large = [entry for entry in self.entries if len(entry.body) > limit]
        if large:
            self.refused += [
                (entry, EventTooLarge(entry.type, len(entry.body), limit)) for entry in large
            ]
            self.entries = [entry for entry in self.entries if len(entry.body) <= limit]
            self._piece = None

    def _closed(self, entries: Sequence[Entry], state: State) -> dict[str, str]:
        """Return the runs that are not this holder's, and why."""
        closed: dict[str, str] = {}
        begun: set[str] = set()
        is_full: bool | None = None
        for entry in entries:
            run_id, step = entry.run_id, entry.step
            if run_id is None or step is Step.ASIDE or run_id in begun:
                continue
            held = state.runs.get(run_id)
            if step is Step.START:
                if is_full is None:
                    is_full = len(records.encode(state.runs)) > STATE_LIMIT_BYTES // 2
                begun.add(run_id)
                if held is not None:
                    closed[run_id] = KNOWN_RUN
                elif is_full:
                    closed[run_id] = "its user has too many open runs"
            elif held is None:
                closed[run_id] = "it has ended"
            elif held.holder != self.holder:
                closed[run_id] = "another process holds it"
            if held is not None and held.cancel is not None:
                self.cancels[run_id] = held.cancel
        return closed

    def _change(self, piece: Piece, state: State, writing: Writing, producer: str) -> Change:
        first, at = state.head + 1, writing.at
        runs = RunChanges(self.stream, state, self.holder, at)
        used: list[Post] = []
        for seq, entry in enumerate(piece.entries, first):
            if entry.run_id is not None:
                runs.note(entry, entry.run_id, seq)
            if entry.key is not None:
                where = self.stream.names.known + token(entry.key)
                key = UsedKey(entry.digest, state.epoch, seq)
                used.append(runs.create(where, key))
        batches: list[Batch] = []
        for events, size, body in pack_entries(piece.entries):
            last = first + events - 1
            batches.append(Batch(state.epoch, first, last, at, events, size, body))
            first = last + 1
        producers = state.producers
        if self._number:
            wrote = Wrote(piece.number, state.head + 1, at, state.epoch)
            producers = state.with_producer(producer, wrote)
        after = msgspec.structs.replace(
            state,
            head=first - 1,
            events=state.events + len(piece.entries),
            size_bytes=state.size_bytes + sum(batch.size_bytes for batch in batches),
            runs=runs.open,
            producers=producers,
            ended=state.ended + runs.ended,
            known=state.known + len(used),
        )
        return Change(after, batches, [*runs.extras.values(), *used])


def first_piece(entries: Sequence[Entry]) -> list[Entry]:
    """Return as many entries as are stored at once; a list that is whole is not cut."""
    size = extras = 0
    end = len(entries)
    for at, entry in enumerate(entries):
        size += len(entry.body)
        extras += (entry.key is not None) + 2 * (entry.step is not Step.WITHIN)
        is_inside = at > 0 and entry.whole and entry.whole == entries[at - 1].whole
        if at and (size > PIECE_BYTES or extras > PIECE_EXTRAS) and not is_inside:
            end = at
            break
    return list(entries[:end])


def append_all(store: Store, appendings: Sequence[Appending], *, producer: str, at: int) -> None:
    """
    Append batches, each log's piece by piece, all logs at once, until all have their answer.

    Raises:
        LogUnavailable: If the store did not answer; to be tried again whole.
    """
    for _ in range(CONFLICTS * _PIECES):
        left = [appending for appending in appendings if not appending.is_over]
        if not left:
            return
        unseen = [appending.stream for appending in left if appending.stream.known is None]
        if unseen:
            load(store, unseen)
        _learn_starts(store, left)
        _append_some(store, left, producer, at)
    raise LogUnavailable("the logs change all the time. It will be tried again")


def _append_some(store: Store, left: Sequence[Appending], producer: str, at: int) -> None:
    states = [found.state for each in left if (found := each.stream.known) is not None]
    writing = Writing(current_life(store, states), store.address.trust_restart, at)
    sent: list[tuple[Appending, list[Post]]] = []
    for appending in left:
        posts = appending.posts(writing, producer, store.link.max_payload)
        if appending.closed:
            appending.take_out(appending.closed, _used_keys(store, appending))
        elif posts:
            sent.append((appending, posts))
    if not sent:
        return
    answers = store.publish_all([posts for _, posts in sent])
    conflicting = []
    for (appending, _), answer in zip(sent, answers, strict=True):
        if isinstance(answer, Conflict):
            conflicting.append(appending)
        else:
            appending.took(answer, producer)
    if conflicting:
        _find_out(store, conflicting)


def _find_out(store: Store, conflicting: Sequence[Appending]) -> None:
    """Learn why some were not stored: somebody was faster, or a run or a key has been before."""
    before: list[Known | None] = [appending.stream.known for appending in conflicting]
    load(store, [appending.stream for appending in conflicting])
    for appending, former in zip(conflicting, before, strict=True):
        known = appending.stream.known
        starts = appending.starts
        if not (starts or appending.keys) or (known and former and known.seq != former.seq):
            continue
        asked = [appending.stream.names.runs + token(run_id) for run_id in starts]
        found = store.lasts(store.names.events_stream, asked)
        begun = [run_id for run_id, one in zip(starts, found, strict=True) if one is not None]
        appending.take_out(dict.fromkeys(begun, KNOWN_RUN), _used_keys(store, appending))


def _used_keys(store: Store, appending: Appending) -> dict[str, UsedKey]:
    """Return what was appended before under the keys of the next piece."""
    asked = [appending.stream.names.known + token(key) for key in appending.keys]
    found = store.lasts(store.names.events_stream, asked)
    return {
        key: records.decode(one.payload, UsedKey)
        for key, one in zip(appending.keys, found, strict=True)
        if one is not None
    }


def _learn_starts(store: Store, left: Sequence[Appending]) -> None:
    for appending in left:
        lacking = appending.lacking()
        if not lacking:
            continue
        stream = appending.stream
        asked = [stream.names.runs + token(run_id) for run_id in lacking]
        for run_id, found in zip(
            lacking, store.lasts(store.names.events_stream, asked), strict=True
        ):
            if found is not None:
                stream.starts[run_id] = records.decode(found.payload, RunRecord).start

"""What a NATS log hears from others: their commits, and what concerns its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec

from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.nats.changing import Change, change
from catenary.eventlog.nats.live import Listener
from catenary.eventlog.nats.posts import Found
from catenary.eventlog.nats.protocol import Message
from catenary.eventlog.nats.reading import read_last
from catenary.eventlog.nats.state import Batch, State, batch_in, known_in
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.nats.writer import NatsWriter
from catenary.eventlog.shared.runs import Cancel
from catenary.position import Position

_BATCH = 0x99
"""What a batch begins with: an array of nine. Words begin with a letter."""

Cancelled = tuple[str, list[str], Cancel]
"""A log's id, its runs, and what is said of their cancel."""

_decode_cancelled = msgspec.msgpack.Decoder(Cancelled).decode


class HearingLog(NatsWriter):
    """The listening side of a NATS log."""

    def _open_store(self) -> None:
        super()._open_store()
        listener = self._listener
        if listener is not None:
            for subject in self._present_subjects():
                listener.listen(subject)

    def _new_listener(self) -> Listener:
        return Listener(
            self.address,
            self._servers,
            hear=self._hear,
            heard_again=self._heard_again,
            always=(self.names.nodes.encode(), self.names.node(self.holder).encode()),
        )

    def _present_subjects(self) -> list[bytes]:
        """Return the subjects on which this process answers for users that are connected to it."""
        return []

    def _channel_of(self, stream: NatsStream) -> bytes:
        return stream.names.live.encode()

    def _want(self, listener: Listener, stream: NatsStream) -> Future[None]:
        return listener.listen(stream.names.live.encode())

    def _hear(self, message: Message) -> bytes | None:
        stream = self._by_channel.get(message.subject)
        payload = message.payload
        if stream is None:
            return self._hear_of_nodes(payload)
        if payload[0] != _BATCH:
            self._note_seen_here(stream, Position.parse(payload[1:].decode()))
            return None
        seq = int(message.header(b"Nats-Sequence") or 0)
        self._hear_batch(stream, batch_in(payload), seq)
        return None

    def _hear_batch(self, stream: NatsStream, batch: Batch, seq: int) -> None:
        # In this order: whoever shows a number here has seen its message before.
        is_shown = stream.has(batch.epoch, batch.last)
        is_new = seq > stream.seen_seq
        if batch.state:
            if is_new and stream.known is not None:
                stream.see(known_in(seq, batch))
            self._note_erasures(stream, batch.erasures)
        if not batch.events:
            with self._step():
                stream.settle(batch.epoch, batch.last)
        elif not is_shown:
            records = batch.records()
            with self._step():
                stream.hear(records)
        elif is_new and batch.epoch == stream.epoch:
            # A number that was shown already is given again: the store had lost the first.
            self._later(lambda store: self._begin_term_of(store, stream, batch.epoch))
        stream.seen_seq = max(stream.seen_seq, seq)

    def _note_erasures(self, stream: NatsStream, erasures: int) -> None:
        former, stream.erasures = stream.erasures, erasures
        if former is not None and former != erasures:
            self.drop_tail(stream)
            with self._step():
                stream.keys.clear()

    def _hear_of_nodes(self, told: bytes) -> bytes | None:
        """Hear what is meant for this process, or for all; or whether a user is here."""
        if not told:
            return b"+"
        if told[:1] == b"n":
            self.nodes.hear(told[1:])
        elif told[:1] == b"c":
            log_id, run_ids, cancel = _decode_cancelled(told[1:])
            self._note_cancels(self.stream(log_id), dict.fromkeys(run_ids, cancel))
        return None

    # Comparing

    def _compare(self, store: Store, streams: Sequence[NatsStream]) -> None:
        with self._step():
            before = [stream.position for stream in streams]
        events = store.about(store.names.events_stream, [stream.names.events for stream in streams])
        seen = store.about(store.names.values_stream, [stream.names.seen for stream in streams])
        for stream, was in zip(streams, before, strict=True):
            state = self._state_of(store, stream, events.get(stream.names.events), was)
            if state.epoch == was.epoch and state.head < was.seq:
                # The store has less than was shown: it lost what it had acknowledged.
                self._begin_term_after_loss(store, stream, was)
            else:
                self._note_erasures(stream, state.erasures)
                with self._step():
                    stream.settle(state.epoch, state.head)
            noted = seen.get(stream.names.seen)
            if noted is not None:
                self._note_seen_here(stream, Position.parse(noted.payload.decode()))

    def _state_of(
        self, store: Store, stream: NatsStream, found: Found | None, was: Position
    ) -> State:
        """Return a log's state; the leader is asked where a replica seems to be behind."""
        if found is not None:
            known = known_in(found.seq, batch_in(found.payload))
            stream.see(known)
            if known.state.epoch == was.epoch and known.state.head >= was.seq:
                return known.state
        return read_last(store, stream, self._now_ms()).state

    def _begin_term_after_loss(self, store: Store, stream: NatsStream, lost: Position) -> None:
        """Begin a new term, if a place proves a loss."""
        self._begin_term(
            store, stream, lambda state: state.epoch == lost.epoch and lost.seq > state.head
        )

    def _begin_term_of(self, store: Store, stream: NatsStream, epoch: str) -> None:
        """Begin a new term after one."""
        self._begin_term(store, stream, lambda state: state.epoch == epoch)

    def _begin_term(self, store: Store, stream: NatsStream, wants: Callable[[State], bool]) -> None:
        def make(state: State) -> Change | None:
            return Change(state.in_new_term(new_epoch())) if wants(state) else None

        change(store, stream, self._now_ms(), make)
        if stream.known is not None:
            with self._step():
                stream.settle(stream.known.state.epoch, stream.known.state.head)

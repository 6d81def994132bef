"""What a NATS log hears from others: their commits, and what concerns its runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec

from catenary.errors import LogUnavailable
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
from catenary.eventlog.shared.nodes import SharedNodes
from catenary.eventlog.shared.runs import Cancel
from catenary.position import Position

logger = logging.getLogger("catenary.eventlog")

LOOK_SECONDS = 30.0
"""The heads of the logs that are read here are compared with the store's so often."""

_BATCH = 0x99
"""What a batch begins with: an array of nine. Words begin with a letter."""

Cancelled = tuple[str, list[str], Cancel]
"""A log's id, its runs, and what is said of their cancel."""

_decode_cancelled = msgspec.msgpack.Decoder(Cancelled).decode


class HearingLog(NatsWriter):
    """The listening side of a NATS log."""

    _listener: Listener | None = None
    nodes: SharedNodes

    def _open_store(self) -> None:
        super()._open_store()
        self._by_subject: dict[bytes, NatsStream] = {}
        with self._step():
            streams = [
                stream
                for stream in self._streams.values()
                if isinstance(stream, NatsStream) and stream.wanting
            ]
        listener = Listener(
            self.address,
            self._servers,
            hear=self._hear,
            heard_again=self._heard_again,
            always=(self.names.nodes.encode(), self.names.node(self.holder).encode()),
        )
        for stream in streams:
            self._by_subject[stream.names.live.encode()] = stream
            listener.listen(stream.names.live.encode())
        for subject in self._present_subjects():
            listener.listen(subject)
        listener.start()
        self._listener = listener

    def _present_subjects(self) -> list[bytes]:
        """Return the subjects on which this process answers for users that are connected to it."""
        return []

    def _close_store(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        super()._close_store()

    # Subjects of logs

    def _listen(self, stream: NatsStream) -> Future[None]:
        """Want a log's live events; each call is undone by one of ``_stop_listening``."""
        listener = self._listener
        if listener is None:
            raise LogUnavailable(f"{self.address.shown} was closed meanwhile")
        subject = stream.names.live.encode()
        with self._step():
            stream.wanting += 1
            self._by_subject[subject] = stream
            return listener.listen(subject)

    def _stop_listening(self, stream: NatsStream) -> None:
        subject = stream.names.live.encode()
        with self._step():
            stream.wanting -= 1
            if not stream.wanting:
                self._by_subject.pop(subject, None)
                if self._listener is not None:
                    self._listener.leave(subject)

    def _hear(self, message: Message) -> bytes | None:
        stream = self._by_subject.get(message.subject)
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

    def _note_seen_here(self, stream: NatsStream, place: Position) -> None:
        with self._step():
            seen = stream.seen
            if seen is None or seen.epoch != place.epoch or place.seq > seen.seq:
                stream.seen = place
        self._seen_watch.tell(stream.log_id, place)

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

    def _note_cancels(self, stream: NatsStream, cancels: dict[str, Cancel]) -> None:
        callbacks = []
        with self._step():
            for run_id, cancel in cancels.items():
                run = stream.runs.get(run_id)
                if run is not None and run.is_open and not run.is_cancel_requested:
                    run.request_cancel(*cancel)
                    callbacks += run.on_cancel
        for callback in callbacks:
            callback()

    # Comparing

    def _heard_again(self, subjects: list[bytes]) -> None:
        streams = [self._by_subject[name] for name in subjects if name in self._by_subject]
        watched = [stream for stream in streams if stream.watchers]
        if watched:
            self._later(lambda store: self._compare(store, watched))

    def _compare(self, store: Store, streams: Sequence[NatsStream]) -> None:
        """Compare what is shown here with what the store has; readers go on from there."""
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

"""What a Redis log hears from others: their commits, and what concerns its runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future

import msgspec

from catenary.errors import LogError, LogUnavailable
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.redis.link import Call
from catenary.eventlog.redis.live import Listener
from catenary.eventlog.redis.runs import cancel_of
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stored import encode, header_of, position_of, records_of
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.redis.writer import RedisWriter
from catenary.eventlog.shared.nodes import SharedNodes
from catenary.position import Position

logger = logging.getLogger("catenary.eventlog")

_decode = msgspec.msgpack.Decoder(list[tuple[str, int, str, list[tuple[str, str]]]]).decode
_decode_cancelled = msgspec.msgpack.Decoder(tuple[str, str, list[str]]).decode

LOOK_SECONDS = 30.0
"""The heads of the logs that are read here are compared with the store's so often."""


class Look(msgspec.Struct, frozen=True):
    """What the store says of one log; of runs that were asked for: owner and cancel."""

    head: Position
    seen: Position | None
    runs: list[tuple[str | None, bytes | None]]


def look_at(
    store: Store, streams: Sequence[RedisStream], now: str, runs: Sequence[Sequence[str]] = ()
) -> list[Look]:
    """Look at logs, one call a bucket; a new one gets its first term."""
    places: dict[int, list[int]] = {}
    for at, stream in enumerate(streams):
        places.setdefault(stream.bucket, []).append(at)
    calls = []
    epoch = new_epoch()
    for bucket, ats in places.items():
        names = [key for at in ats for key in streams[at].names[:2]]
        asked = [(epoch, runs[at] if runs else ()) for at in ats]
        calls.append(Call(bucket, "look", names, (now, encode(asked))))
    found: list[Look | None] = [None] * len(streams)
    for ats, answer in zip(places.values(), store.call_all(calls), strict=True):
        for at, (named, head, seen, told) in zip(ats, _decode(answer), strict=True):
            of_runs = [(owner or None, cancel.encode() or None) for owner, cancel in told]
            found[at] = Look(Position(named, head), position_of(seen), of_runs)
    return [look for look in found if look is not None]


class HearingLog(RedisWriter):
    """The listening side of a Redis log."""

    _listener: Listener | None = None
    nodes: SharedNodes

    def _open_store(self) -> None:
        super()._open_store()
        self._by_channel: dict[bytes, RedisStream] = {}
        with self._step():
            streams = [
                stream
                for stream in self._streams.values()
                if isinstance(stream, RedisStream) and stream.wanting
            ]
        listener = Listener(
            self.address,
            self._rules,
            hear=self._hear,
            heard_again=self._heard_again,
            always=(self.keys.nodes_channel, self.keys.node_channel(self.holder)),
        )
        for stream in streams:
            self._by_channel[stream.names.channel] = stream
            listener.listen(stream.names.channel, stream.bucket)
        listener.start()
        self._listener = listener

    def _close_store(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        super()._close_store()

    # Channels of logs

    def _listen(self, stream: RedisStream) -> Future[None]:
        """Want a log's channel; each call is undone by one of ``_stop_listening``."""
        listener = self._listener
        if listener is None:
            raise LogUnavailable(f"{self.address.shown} was closed meanwhile")
        with self._step():
            stream.wanting += 1
            self._by_channel[stream.names.channel] = stream
            return listener.listen(stream.names.channel, stream.bucket)

    def _stop_listening(self, stream: RedisStream) -> None:
        with self._step():
            stream.wanting -= 1
            if not stream.wanting:
                self._by_channel.pop(stream.names.channel, None)
                if self._listener is not None:
                    self._listener.leave(stream.names.channel)

    def _hear(self, channel: bytes, told: bytes) -> None:
        stream = self._by_channel.get(channel)
        if stream is None:
            self._hear_of_nodes(told)
        elif told.startswith(b"b "):
            header = header_of(told)
            if not stream.has(header.epoch, header.last):
                records = records_of(told, header)
                with self._step():
                    stream.hear(records)
        else:
            self._hear_words(stream, told.decode().split())

    def _hear_words(self, stream: RedisStream, words: list[str]) -> None:
        """Hear that a term began, that something was seen, or that something was erased."""
        kind, *rest = words
        if kind == "t":
            with self._step():
                stream.settle(rest[0], int(rest[1]))
        elif kind == "s":
            self._note_seen_here(stream, Position.parse(rest[0]))
        elif kind == "x":
            self.drop_tail(stream)
            if rest:
                with self._step():
                    stream.keys.clear()

    def _note_seen_here(self, stream: RedisStream, place: Position) -> None:
        with self._step():
            seen = stream.seen
            if seen is None or seen.epoch != place.epoch or place.seq > seen.seq:
                stream.seen = place
        self._seen_watch.tell(stream.log_id, place)

    def _hear_of_nodes(self, told: bytes) -> None:
        """Hear what is meant for this process, or for all."""
        if told[:1] == b"n":
            self.nodes.hear(told[1:])
        elif told[:1] == b"c":
            log_id, cancel, run_ids = _decode_cancelled(told[1:])
            self._note_cancels(self.stream(log_id), dict.fromkeys(run_ids, cancel.encode()))

    def _note_cancels(self, stream: RedisStream, cancels: dict[str, bytes]) -> None:
        callbacks = []
        with self._step():
            for run_id, packed in cancels.items():
                run = stream.runs.get(run_id)
                if run is not None and run.is_open and not run.is_cancel_requested:
                    run.request_cancel(*cancel_of(packed))
                    callbacks += run.on_cancel
        for callback in callbacks:
            callback()

    # Comparing

    def _heard_again(self, channels: list[bytes]) -> None:
        callers = self._callers
        streams = [self._by_channel[channel] for channel in channels if channel in self._by_channel]
        watched = [stream for stream in streams if stream.watchers]
        if watched and callers is not None:
            callers.run_later(lambda store: self._compare_or_say(store, watched))

    def _compare_or_say(self, store: Store, streams: list[RedisStream]) -> None:
        try:
            self._compare(store, streams)
        except LogError as error:
            # The next connection, or the next look, compares again.
            logger.warning("heads of %d logs cannot be compared: %s", len(streams), error)

    def _compare(self, store: Store, streams: Sequence[RedisStream]) -> None:
        """Compare what is shown here with what the store has; readers go on from there."""
        with self._step():
            before = [stream.position for stream in streams]
        for stream, was, look in zip(
            streams, before, look_at(store, streams, self._now()), strict=True
        ):
            if look.head.epoch == was.epoch and look.head.seq < was.seq:
                # The store has less than was shown: it lost what it had acknowledged.
                self._begin_term_after_loss(store, stream, was)
            else:
                with self._step():
                    stream.settle(*look.head)
            if look.seen is not None:
                self._note_seen_here(stream, look.seen)

    def _begin_term_after_loss(self, store: Store, stream: RedisStream, lost: Position) -> None:
        self._begin_term(store, stream, (lost.epoch, lost.seq))

    def _begin_term(
        self, store: Store, stream: RedisStream, lost: tuple[str, int] | tuple[str, str]
    ) -> None:
        """Begin a new term; if a place is given, only if it proves a loss."""
        names = stream.names
        epoch, head = store.call(
            stream.bucket, "term", names[:2], self._now(), new_epoch(), names.channel, *lost
        )
        with self._step():
            stream.settle(epoch.decode(), head)

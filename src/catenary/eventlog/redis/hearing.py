"""What a Redis log hears from others: their commits, and what concerns its runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import msgspec

from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.redis.link import Call
from catenary.eventlog.redis.live import Listener
from catenary.eventlog.redis.runs import cancel_of
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stored import encode, header_of, position_of, records_of
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.redis.writer import RedisWriter
from catenary.position import Position

_decode = msgspec.msgpack.Decoder(list[tuple[str, int, str, list[tuple[str, str]]]]).decode
_decode_cancelled = msgspec.msgpack.Decoder(tuple[str, str, list[str]]).decode


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

    def _new_listener(self) -> Listener:
        return Listener(
            self.address,
            self._rules,
            hear=self._hear,
            heard_again=self._heard_again,
            always=(self.keys.nodes_channel, self.keys.node_channel(self.holder)),
        )

    def _channel_of(self, stream: RedisStream) -> bytes:
        return stream.names.channel

    def _want(self, listener: Listener, stream: RedisStream) -> Future[None]:
        return listener.listen(stream.names.channel, stream.bucket)

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

    def _hear_of_nodes(self, told: bytes) -> None:
        """Hear what is meant for this process, or for all."""
        if told[:1] == b"n":
            self.nodes.hear(told[1:])
        elif told[:1] == b"c":
            log_id, cancel, run_ids = _decode_cancelled(told[1:])
            self._note_cancels(
                self.stream(log_id), dict.fromkeys(run_ids, cancel_of(cancel.encode()))
            )

    # Comparing

    def _compare(self, store: Store, streams: Sequence[RedisStream]) -> None:
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

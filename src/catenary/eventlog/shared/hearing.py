"""What a shared log hears from others: their commits, and what concerns its runs."""

from __future__ import annotations

import abc
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Generic

from catenary.errors import LogUnavailable
from catenary.eventlog.shared.callers import S
from catenary.eventlog.shared.live import H
from catenary.eventlog.shared.nodes import SharedNodes
from catenary.eventlog.shared.runs import Cancel
from catenary.eventlog.shared.session import L
from catenary.eventlog.shared.writer import A, SharedWriter
from catenary.position import Position

LOOK_SECONDS = 30.0
"""The heads of the logs that are read here are compared with the store's so often."""


class SharedHearing(SharedWriter[S, L, A], Generic[S, L, A, H]):
    """The listening side of a shared log. A subclass brings the listener, and hears."""

    nodes: SharedNodes

    _listener: H | None = None
    _looked_at = float("-inf")

    # The channels

    @abc.abstractmethod
    def _new_listener(self) -> H:
        """Return a listener that has not begun."""

    @abc.abstractmethod
    def _channel_of(self, stream: L) -> bytes:
        """Return the channel of a log's live events."""

    @abc.abstractmethod
    def _want(self, listener: H, stream: L) -> Future[None]:
        """Let a listener hear a log; the result is there once it does."""

    @abc.abstractmethod
    def _compare(self, store: S, streams: Sequence[L]) -> None:
        """
        Compare what is shown here with what the store has; readers go on from there.

        Raises:
            LogError: The store cannot now.
        """

    # Opening and closing

    def _open_store(self) -> None:
        super()._open_store()
        self._by_channel: dict[bytes, L] = {}
        with self._step():
            streams = [
                stream for stream in map(self._own, self._streams.values()) if stream.wanting
            ]
        listener = self._new_listener()
        for stream in streams:
            self._by_channel[self._channel_of(stream)] = stream
            self._want(listener, stream)
        listener.start()
        self._listener = listener

    def _close_store(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        super()._close_store()

    # Listening to a log

    def _listen(self, stream: L) -> Future[None]:
        """Want a log's live events; each call is undone by one of ``_stop_listening``."""
        listener = self._listener
        if listener is None:
            raise LogUnavailable(f"{self._shown} was closed meanwhile")
        with self._step():
            stream.wanting += 1
            self._by_channel[self._channel_of(stream)] = stream
            return self._want(listener, stream)

    def _stop_listening(self, stream: L) -> None:
        channel = self._channel_of(stream)
        with self._step():
            stream.wanting -= 1
            if not stream.wanting:
                self._by_channel.pop(channel, None)
                if self._listener is not None:
                    self._listener.leave(channel)

    # What is heard

    def _note_seen_here(self, stream: L, place: Position) -> None:
        with self._step():
            seen = stream.seen
            if seen is None or seen.epoch != place.epoch or place.seq > seen.seq:
                stream.seen = place
        self._seen_watch.tell(stream.log_id, place)

    def _note_cancels(self, stream: L, cancels: dict[str, Cancel]) -> None:
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

    def _heard_again(self, channels: list[bytes]) -> None:
        streams = [self._by_channel[name] for name in channels if name in self._by_channel]
        watched = [stream for stream in streams if stream.watchers]
        if watched:
            self._later(lambda store: self._compare(store, watched))

    async def _look_at_heads(self) -> None:
        """Now and then compare the heads of the logs that are read here, whatever was heard."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        with self._step():
            watched = [stream for stream in map(self._own, self._busy.values()) if stream.watchers]
        if watched:
            await self._ask(self._compare, watched)

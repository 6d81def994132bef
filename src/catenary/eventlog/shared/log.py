"""An event log that several processes share, over a store that a subclass brings."""

from __future__ import annotations

import abc
import asyncio
from typing import Any

from catenary.errors import LogUnavailable
from catenary.eventlog.shared.callers import S
from catenary.eventlog.shared.duty import SharedDuty
from catenary.eventlog.shared.live import H
from catenary.eventlog.shared.session import L, SharedSession
from catenary.eventlog.shared.writer import A
from catenary.eventlog.stream import Stream, Watcher
from catenary.position import Position

LISTEN_TIMEOUT = 5.0


class Asleep:
    """A watcher that only keeps its log's live events heard."""

    is_awake = True

    def wake(self) -> None:
        """Nothing waits for new events."""


class SharedLog(SharedDuty[S, L, A, H]):
    """
    A log that any node appends to, and any node reads.

    Generic in the store, in its streams, in the batches on their way into it,
    and in the listener to what others append.
    """

    # The store

    @abc.abstractmethod
    def _head_of(self, store: S, stream: L) -> Position:
        """Return a log's head; a new log gets its first term. Raises ``LogError``."""

    @abc.abstractmethod
    def _locate_word(self, store: S, stream: L, word: str) -> Position:
        """Return the place that ``start``, ``open`` or ``now`` names. Raises ``LogError``."""

    @abc.abstractmethod
    def _begin_term_after_loss(self, store: S, stream: L, lost: Position) -> None:
        """Begin a new term, if a place proves a loss. Raises ``LogError``."""

    @abc.abstractmethod
    def _begin_any_term(self, store: S, stream: L) -> None:
        """Begin a new term. Raises ``LogError``."""

    @abc.abstractmethod
    async def _all_streams(self) -> list[L]:
        """Return the streams of all logs that there are. Raises ``LogError``."""

    @abc.abstractmethod
    def _erase(self, store: S, stream: L, thread_id: str | None) -> int:
        """Erase a thread, or all; return how many events. Raises ``LogError``."""

    def _head_to_watch(self, store: S, stream: L) -> Position:
        """Return the head of a log that is about to be watched. Raises ``LogError``."""
        return self._head_of(store, stream)

    # Reading

    async def watch(self, log_id: str, watcher: Watcher) -> Stream:
        """Begin to wake ``watcher``; its live events are heard before the head is read."""
        await self._is_open()
        stream = self.stream(log_id)
        heard = asyncio.wrap_future(self._listen(stream))
        try:
            async with asyncio.timeout(LISTEN_TIMEOUT):
                await asyncio.shield(heard)
            head = await self._ask(self._head_to_watch, stream)
        except BaseException as error:
            self._stop_listening(stream)
            if isinstance(error, TimeoutError):
                text = f"{self._shown}: live events cannot be heard"
                raise LogUnavailable(text) from None
            raise
        with self._step():
            stream.settle(*head)
            stream.add_watcher(watcher)
            self._busy[log_id] = stream
        return stream

    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        """Stop to wake ``watcher``; with the last one its live events are left."""
        own = self._own(stream)
        with self._step():
            is_watching = watcher in own.watchers
            super().unwatch(own, watcher)
            if is_watching:
                self._stop_listening(own)

    async def head(self, log_id: str) -> Position:
        """Return the head."""
        return await self._ask(self._head_of, self.stream(log_id))

    async def locate(self, log_id: str, after: str) -> Position:
        """Turn a keyword or a position's text into a place."""
        stream = self.stream(log_id)
        if after in ("start", "open", "now"):
            return await self._ask(self._locate_word, stream, after)
        place = Position.parse(after)
        head = await self._ask(self._head_of, stream)
        if head.epoch == place.epoch and place.seq > head.seq:
            await self._ask(self._begin_term_after_loss, stream, place)
        return place

    async def wait_seen(self, log_id: str, place: Position, *, timeout: float | None) -> bool:
        """Wait until ``place`` was acknowledged, on whatever node."""
        watcher = Asleep()
        stream = await self.watch(log_id, watcher)
        try:
            return await super().wait_seen(log_id, place, timeout=timeout)
        finally:
            self.unwatch(stream, watcher)

    # Keeping

    async def erase(self, log_id: str, thread_id: str | None = None) -> int:
        """Erase a thread, or all, after all that was accepted here before."""
        stream = self.stream(log_id)

        def erase(session: SharedSession[S, L]) -> int:
            session.then(lambda: self._forget_erased(stream, thread_id))
            return self._erase(session.store, stream, thread_id)

        return await self._do(erase, stream)

    def _forget_erased(self, stream: L, thread_id: str | None) -> None:
        for run in stream.runs.values():
            if thread_id is None or run.thread_id == thread_id:
                run.close("its events were erased")
                stream.open_runs.discard(run.run_id)
        if thread_id is None:
            stream.keys.clear()
        self.drop_tail(stream)

    async def new_term(self, log_id: str | None = None) -> int:
        """Begin a new term for one log, or for all that there are."""
        streams = [self.stream(log_id)] if log_id is not None else await self._all_streams()

        def begin(session: SharedSession[S, L]) -> int:
            for stream in streams:
                self._begin_any_term(session.store, stream)
            return len(streams)

        return await self._do(begin, *streams)

    def statistics(self) -> dict[str, Any]:
        """Return counters and sizes, of what this process holds in memory."""
        return super().statistics() | {"events_held": 0, "bytes_held": 0}

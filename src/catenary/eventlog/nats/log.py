"""
``nats://``: event logs in NATS JetStream, for many nodes.

Any node may append for any user, and any node may hold any connection. A
message holds a batch and the state that follows from it, and is stored only
after the message that its writer knew. What is stored the servers publish to
those who listen; a reader that missed something reads it from the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from catenary.errors import LogUnavailable
from catenary.eventlog.base import PAGE_BYTES, PAGE_EVENTS
from catenary.eventlog.model import Claim, Page, Retention
from catenary.eventlog.nats import rewriting, values
from catenary.eventlog.nats.address import parse
from catenary.eventlog.nats.duty import DutifulLog
from catenary.eventlog.nats.neighbours import NatsNodes
from catenary.eventlog.nats.reading import read_last, read_page
from catenary.eventlog.nats.session import Session
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.shared.leases import LEASE_SECONDS
from catenary.eventlog.stream import Stream, Watcher
from catenary.position import Position

LISTEN_TIMEOUT = 5.0


class Asleep:
    """A watcher that only keeps its log's live events heard."""

    is_awake = True

    def wake(self) -> None:
        """Nothing waits for new events."""


class NatsLog(DutifulLog):
    """
    Event logs in JetStream of NATS 2.12 or later.

    Args:
        url: ``nats://…`` or ``tls://…``, as :mod:`catenary.eventlog.nats.address` reads it.
        clock: Replaces the store's own clock, in tests.
        lease: After so many seconds without a word of a process its runs are lost.
        limits: ``log_intake_bytes``, ``intake_bytes``, ``log_reserve_bytes``, ``reserve_bytes``.

    Raises:
        ConfigError: If the URL is none of these.
    """

    def __init__(
        self,
        url: str,
        *,
        retention: Retention | None = None,
        clock: Callable[[], float] | None = None,
        lease: float = LEASE_SECONDS,
        **limits: int,
    ) -> None:
        super().__init__(
            parse(url), url=url, retention=retention, clock=clock, lease=lease, **limits
        )
        self.nodes = self._nodes = NatsNodes(self)

    def _present_subjects(self) -> list[bytes]:
        return self._nodes.subjects()

    # Reading

    async def watch(self, log_id: str, watcher: Watcher) -> Stream:
        """Begin to wake ``watcher``; its live events are heard before the head is read."""
        await self._is_open()
        stream = self.stream(log_id)
        heard = asyncio.wrap_future(self._listen(stream))
        try:
            async with asyncio.timeout(LISTEN_TIMEOUT):
                await asyncio.shield(heard)
            last = await self._ask(read_last, stream, self._now_ms())
        except BaseException as error:
            self._stop_listening(stream)
            if isinstance(error, TimeoutError):
                text = f"{self.address.shown}: live events cannot be heard"
                raise LogUnavailable(text) from None
            raise
        self._note_erasures(stream, last.state.erasures)
        with self._step():
            stream.settle(*last.state.position)
            stream.add_watcher(watcher)
            self._busy[log_id] = stream
        return stream

    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        """Stop to wake ``watcher``; with the last one its live events are left."""
        assert isinstance(stream, NatsStream)
        with self._step():
            is_watching = watcher in stream.watchers
            super().unwatch(stream, watcher)
            if is_watching:
                self._stop_listening(stream)

    async def head(self, log_id: str) -> Position:
        """Return the head."""
        last = await self._ask(read_last, self.stream(log_id), self._now_ms())
        return last.state.position

    async def locate(self, log_id: str, after: str) -> Position:
        """Turn a keyword or a position's text into a place."""
        stream = self.stream(log_id)
        if after in ("start", "open", "now"):
            return await self._ask(self._locate_word, stream, after)
        place = Position.parse(after)
        head = await self.head(log_id)
        if head.epoch == place.epoch and place.seq > head.seq:
            await self._ask(self._begin_term_after_loss, stream, place)
        return place

    async def read(
        self,
        log_id: str,
        after: Position,
        *,
        limit: int = PAGE_EVENTS,
        limit_bytes: int = PAGE_BYTES,
        thread_ids: Collection[str] | None = None,
        run_id: str | None = None,
    ) -> Page:
        """Return the next page after a place."""
        return await self._ask(
            read_page,
            self.stream(log_id),
            self._now_ms(),
            after,
            limit=limit,
            limit_bytes=limit_bytes,
            thread_ids=thread_ids,
            run_id=run_id,
        )

    # Commands, tickets, what was seen

    async def claim_command(self, log_id: str, command_id: str, digest: bytes) -> Claim:
        """Claim a message, once."""
        return await self._ask(
            values.claim,
            self.stream(log_id),
            command_id,
            digest,
            self.holder,
            self._now_ms(),
            self._is_living,
        )

    async def reclaim_command(self, log_id: str, command_id: str) -> None:
        """Claim an interrupted message again."""
        await self._ask(values.reclaim, self.stream(log_id), command_id, self.holder)

    async def finish_command(self, log_id: str, command_id: str, reply: bytes) -> None:
        """Store the reply."""
        await self._ask(values.finish, self.stream(log_id), command_id, reply)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value."""
        await self._ask(values.put, key, value, ttl, self._now_ms())

    async def get(self, key: str) -> bytes | None:
        """Return a kept value."""
        return await self._ask(values.get, key, self._now_ms())

    async def take(self, key: str) -> bytes | None:
        """Return a kept value, once."""
        return await self._ask(values.take, key, self._now_ms())

    async def _store_seen(self, log_id: str, place: Position) -> None:
        await self._ask(values.note_seen, self.stream(log_id), place, self._now_ms())

    async def wait_seen(self, log_id: str, place: Position, *, timeout: float | None) -> bool:
        """Wait until ``place`` was acknowledged, on whatever node."""
        watcher = Asleep()
        stream = await self.watch(log_id, watcher)
        try:
            return await super().wait_seen(log_id, place, timeout=timeout)
        finally:
            self.unwatch(stream, watcher)

    async def seen(self, log_id: str) -> Position | None:
        """Return the furthest acknowledged place."""
        head = await self.head(log_id)
        seen = await self._ask(values.seen, self.stream(log_id))
        return seen if seen is not None and seen.epoch == head.epoch else None

    # Keeping

    async def erase(self, log_id: str, thread_id: str | None = None) -> int:
        """Erase a thread, or all, after all that was accepted here before."""
        stream = self.stream(log_id)

        def erase(session: Session) -> int:
            session.then(lambda: self._forget_erased(stream, thread_id))
            if thread_id is None:
                return rewriting.erase_all(session.store, stream, session.at)
            return rewriting.erase_thread(session.store, stream, thread_id, self.holder, session.at)

        return await self._do(erase, stream)

    def _forget_erased(self, stream: NatsStream, thread_id: str | None) -> None:
        for run in stream.runs.values():
            if thread_id is None or run.thread_id == thread_id:
                run.close("its events were erased")
                stream.open_runs.discard(run.run_id)
        if thread_id is None:
            stream.keys.clear()
        self.drop_tail(stream)

    async def new_term(self, log_id: str | None = None) -> int:
        """Begin a new term for one log, or for all that there are."""
        if log_id is not None:
            streams = [self.stream(log_id)]
        else:
            streams = [self._anonymous(name) for name in await self._ask(all_logs)]

        def begin(session: Session) -> int:
            for stream in streams:
                self._begin_term(session.store, stream, lambda _: True)
            return len(streams)

        return await self._do(begin, *streams)

    def _anonymous(self, name: str) -> NatsStream:
        """Return the log that a token of a subject names; its id may not be known."""
        for stream in self._streams.values():
            if isinstance(stream, NatsStream) and stream.names.events.endswith(f".{name}"):
                return stream
        return NatsStream(name, self.names.of_token(name))

    def statistics(self) -> dict[str, Any]:
        """Return counters and sizes, of what this process holds in memory."""
        return super().statistics() | {"events_held": 0, "bytes_held": 0}


def all_logs(store: Store) -> list[str]:
    """Return the tokens of the ids of all logs, for operators."""
    return sorted(
        subject.rpartition(".")[2]
        for subject in store.subjects(store.names.events_stream, store.names.every("e", "*"))
    )

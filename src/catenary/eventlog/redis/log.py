"""
``redis://``: event logs in Redis or Valkey, for many nodes.

Any node may append for any user, and any node may hold any connection. One
script call appends, in one atomic step; its own thread makes it. What others
append is heard over publish and subscribe, and read from the log where a
message was missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from catenary.errors import LogUnavailable
from catenary.eventlog.base import PAGE_BYTES, PAGE_EVENTS
from catenary.eventlog.model import Claim, Page, Retention
from catenary.eventlog.redis import commands, keeping
from catenary.eventlog.redis.address import parse
from catenary.eventlog.redis.duty import DutifulLog
from catenary.eventlog.redis.hearing import look_at
from catenary.eventlog.redis.neighbours import RedisNodes
from catenary.eventlog.redis.reading import read_page
from catenary.eventlog.redis.session import Session
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.retention import erased_entry
from catenary.eventlog.shared.leases import LEASE_SECONDS
from catenary.eventlog.stream import Stream, Watcher
from catenary.position import Position

LISTEN_TIMEOUT = 5.0


class Asleep:
    """A watcher that only keeps its log's channel heard."""

    is_awake = True

    def wake(self) -> None:
        """Nothing waits for new events."""


class RedisLog(DutifulLog):
    """
    Event logs in Redis 6.2 or later, or Valkey.

    Args:
        url: ``redis://…`` or ``rediss://…``, as :mod:`catenary.eventlog.redis.address` reads it.
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
        self.nodes = RedisNodes(self)

    # Reading

    async def watch(self, log_id: str, watcher: Watcher) -> Stream:
        """Begin to wake ``watcher``; its channel is heard before the head is read."""
        await self._is_open()
        stream = self.stream(log_id)
        heard = asyncio.wrap_future(self._listen(stream))
        try:
            async with asyncio.timeout(LISTEN_TIMEOUT):
                await asyncio.shield(heard)
            (look,) = await self._ask(look_at, [stream], self._now())
        except BaseException as error:
            self._stop_listening(stream)
            if isinstance(error, TimeoutError):
                text = f"{self.address.shown}: live events cannot be heard"
                raise LogUnavailable(text) from None
            raise
        with self._step():
            stream.settle(*look.head)
            stream.add_watcher(watcher)
            self._busy[log_id] = stream
        return stream

    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        """Stop to wake ``watcher``; with the last one its channel is left."""
        assert isinstance(stream, RedisStream)
        with self._step():
            is_watching = watcher in stream.watchers
            super().unwatch(stream, watcher)
            if is_watching:
                self._stop_listening(stream)

    async def head(self, log_id: str) -> Position:
        """Return the head."""
        (look,) = await self._ask(look_at, [self.stream(log_id)], self._now())
        return look.head

    async def locate(self, log_id: str, after: str) -> Position:
        """Turn a keyword or a position's text into a place."""
        stream = self.stream(log_id)
        if after in ("start", "open", "now"):
            return await self._ask(self._locate_word, stream, after)
        place = Position.parse(after)
        (look,) = await self._ask(look_at, [stream], self._now())
        if look.head.epoch == place.epoch and place.seq > look.head.seq:
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
            self.stream(log_id).at(self._now()),
            after,
            limit=limit,
            limit_bytes=limit_bytes,
            thread_ids=thread_ids,
            run_id=run_id,
        )

    # Commands, tickets, what was seen

    async def claim_command(self, log_id: str, command_id: str, digest: bytes) -> Claim:
        """Claim a message, once."""
        stream = self.stream(log_id)
        return await self._ask(
            commands.claim, stream.at(self._now()), command_id, digest, self.holder, self._is_living
        )

    async def reclaim_command(self, log_id: str, command_id: str) -> None:
        """Claim an interrupted message again."""
        stream = self.stream(log_id)
        await self._ask(commands.reclaim, stream.at(self._now()), command_id, self.holder)

    async def finish_command(self, log_id: str, command_id: str, reply: bytes) -> None:
        """Store the reply."""
        await self._ask(commands.finish, self.stream(log_id).at(self._now()), command_id, reply)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value."""
        await self._ask(commands.put, self.keys, key, value, ttl, self._now())

    async def get(self, key: str) -> bytes | None:
        """Return a kept value."""
        return await self._ask(commands.get, self.keys, key, self._now())

    async def take(self, key: str) -> bytes | None:
        """Return a kept value, once."""
        return await self._ask(commands.take, self.keys, key, self._now())

    async def _store_seen(self, log_id: str, place: Position) -> None:
        await self._ask(commands.note_seen, self.stream(log_id), place)

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
        (look,) = await self._ask(look_at, [self.stream(log_id)], self._now())
        seen = look.seen
        return seen if seen is not None and seen.epoch == look.head.epoch else None

    # Keeping

    async def erase(self, log_id: str, thread_id: str | None = None) -> int:
        """Erase a thread, or all, after all that was accepted here before."""
        stream = self.stream(log_id)

        def erase(session: Session) -> int:
            session.then(lambda: self._forget_erased(stream, thread_id))
            log = stream.at(session.now)
            if thread_id is not None:
                return keeping.erase_thread(session.store, self.keys, log, log_id, thread_id)
            said = erased_entry(log_id, int(self._clock() * 1000))
            return keeping.erase_all(session.store, self.keys, log, log_id, said)

        return await self._do(erase, stream)

    def _forget_erased(self, stream: RedisStream, thread_id: str | None) -> None:
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
            streams = [
                self.stream(found) for found in await self._ask(commands.all_logs, self.keys)
            ]

        def begin(session: Session) -> int:
            for stream in streams:
                self._begin_term(session.store, stream, ("", ""))
            return len(streams)

        return await self._do(begin, *streams)

    async def sweep(self) -> None:
        """Do the upkeep that is due."""
        self.nodes.refresh()
        await super().sweep()

    def statistics(self) -> dict[str, Any]:
        """Return counters and sizes, of what this process holds in memory."""
        return super().statistics() | {"events_held": 0, "bytes_held": 0}

"""
``redis://``: event logs in Redis or Valkey, for many nodes.

Any node may append for any user, and any node may hold any connection. One
script call appends, in one atomic step; its own thread makes it. What others
append is heard over publish and subscribe, and read from the log where a
message was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from catenary.eventlog.base import PAGE_BYTES, PAGE_EVENTS
from catenary.eventlog.model import Claim, Page, Retention
from catenary.eventlog.redis import commands, keeping
from catenary.eventlog.redis.address import parse
from catenary.eventlog.redis.duty import DutifulLog
from catenary.eventlog.redis.hearing import look_at
from catenary.eventlog.redis.neighbours import RedisNodes
from catenary.eventlog.redis.reading import read_page
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.retention import erased_entry
from catenary.eventlog.shared.leases import LEASE_SECONDS
from catenary.position import Position


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

    def _head_of(self, store: Store, stream: RedisStream) -> Position:
        (look,) = look_at(store, [stream], self._now())
        return look.head

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

    async def seen(self, log_id: str) -> Position | None:
        """Return the furthest acknowledged place."""
        (look,) = await self._ask(look_at, [self.stream(log_id)], self._now())
        seen = look.seen
        return seen if seen is not None and seen.epoch == look.head.epoch else None

    # Keeping

    def _erase(self, store: Store, stream: RedisStream, thread_id: str | None) -> int:
        log, log_id = stream.at(self._now()), stream.log_id
        if thread_id is not None:
            return keeping.erase_thread(store, self.keys, log, log_id, thread_id)
        said = erased_entry(log_id, self.now_ms())
        return keeping.erase_all(store, self.keys, log, log_id, said)

    def _begin_any_term(self, store: Store, stream: RedisStream) -> None:
        self._begin_term(store, stream, ("", ""))

    async def _all_streams(self) -> list[RedisStream]:
        return [self.stream(found) for found in await self._ask(commands.all_logs, self.keys)]

    async def sweep(self) -> None:
        """Do the upkeep that is due."""
        self.nodes.refresh()
        await super().sweep()

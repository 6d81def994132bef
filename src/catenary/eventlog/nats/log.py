"""
``nats://``: event logs in NATS JetStream, for many nodes.

Any node may append for any user, and any node may hold any connection. A
message holds a batch and the state that follows from it, and is stored only
after the message that its writer knew. What is stored the servers publish to
those who listen; a reader that missed something reads it from the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from catenary.eventlog.base import PAGE_BYTES, PAGE_EVENTS
from catenary.eventlog.model import Claim, Page, Retention
from catenary.eventlog.nats import rewriting, values
from catenary.eventlog.nats.address import parse
from catenary.eventlog.nats.duty import DutifulLog
from catenary.eventlog.nats.neighbours import NatsNodes
from catenary.eventlog.nats.reading import read_last, read_page
from catenary.eventlog.nats.store import Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.shared.leases import LEASE_SECONDS
from catenary.position import Position


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

    def _head_of(self, store: Store, stream: NatsStream) -> Position:
        return read_last(store, stream, self._now_ms()).state.position

    def _head_to_watch(self, store: Store, stream: NatsStream) -> Position:
        state = read_last(store, stream, self._now_ms()).state
        self._note_erasures(stream, state.erasures)
        return state.position

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

    async def seen(self, log_id: str) -> Position | None:
        """Return the furthest acknowledged place."""
        head = await self.head(log_id)
        seen = await self._ask(values.seen, self.stream(log_id))
        return seen if seen is not None and seen.epoch == head.epoch else None

    # Keeping

    def _erase(self, store: Store, stream: NatsStream, thread_id: str | None) -> int:
        if thread_id is None:
            return rewriting.erase_all(store, stream, self._now_ms())
        return rewriting.erase_thread(store, stream, thread_id, self.holder, self._now_ms())

    def _begin_any_term(self, store: Store, stream: NatsStream) -> None:
        self._begin_term(store, stream, lambda _: True)

    async def _all_streams(self) -> list[NatsStream]:
        return [self._anonymous(name) for name in await self._ask(all_logs)]

    def _anonymous(self, name: str) -> NatsStream:
        """Return the log that a token of a subject names; its id may not be known."""
        for stream in self._streams.values():
            if isinstance(stream, NatsStream) and stream.names.events.endswith(f".{name}"):
                return stream
        return NatsStream(name, self.names.of_token(name))


def all_logs(store: Store) -> list[str]:
    """Return the tokens of the ids of all logs, for operators."""
    return sorted(
        subject.rpartition(".")[2]
        for subject in store.subjects(store.names.events_stream, store.names.every("e", "*"))
    )

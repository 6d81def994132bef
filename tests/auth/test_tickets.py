"""Tickets: who may use one, how often, how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from catenary.auth import Identity
from catenary.errors import AuthError, LogUnavailable, UsageError
from catenary.tickets import Purpose, Tickets

from .support import NOW, Clock

PURPOSES: list[Purpose] = ["ws", "sse"]
ME = Identity(
    user_id="user_123",
    session_id="s_1",
    expires_at=NOW + 3600,
    groups=("staff",),
    claims={"sub": "user_123", "plan": {"name": "pro"}},
)


class MemoryStore:
    """A store that keeps values until their time by the test's clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.kept: dict[str, tuple[bytes, float]] = {}
        self.is_away = False
        self._clock = clock

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        self._reach()
        self.kept[key] = (value, self._clock() + ttl)

    async def take(self, key: str) -> bytes | None:
        value = await self.get(key)
        self.kept.pop(key, None)
        return value

    async def get(self, key: str) -> bytes | None:
        self._reach()
        value, until = self.kept.get(key, (None, 0.0))
        return value if self._clock() < until else None

    def _reach(self) -> None:
        if self.is_away:
            raise LogUnavailable("away")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def tickets(store: MemoryStore, clock: Clock) -> Tickets:
    return Tickets(store, clock=clock)


async def assert_refused(tickets: Tickets, ticket: Any, purpose: Purpose) -> None:
    with pytest.raises(AuthError) as refused:
        await tickets.redeem(ticket, purpose)
    error = refused.value
    assert (error.reason, error.status, error.close_code) == ("ticket", 401, 4501)
    assert len(ticket) < 8 or ticket not in repr(error)


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_a_ticket_stands_for_the_whole_identity(tickets: Tickets, purpose: Purpose) -> None:
    assert await tickets.redeem(await tickets.issue(ME, purpose=purpose), purpose) == ME


async def test_a_ticket_is_256_random_bits_and_the_store_sees_a_digest(
    tickets: Tickets, store: MemoryStore
) -> None:
    issued = {await tickets.issue(ME, purpose=purpose) for purpose in PURPOSES for _ in range(50)}
    assert len(issued) == len(store.kept) == 100
    for ticket in issued:
        assert len(ticket) == 43
        assert ticket.replace("-", "").replace("_", "").isalnum()
        assert ticket not in repr(store.kept)


async def test_a_ws_ticket_works_once(tickets: Tickets) -> None:
    ticket = await tickets.issue(ME, purpose="ws")
    await tickets.redeem(ticket, "ws")
    await assert_refused(tickets, ticket, "ws")


async def test_of_many_who_present_a_ws_ticket_one_gets_in(tickets: Tickets) -> None:
    ticket = await tickets.issue(ME, purpose="ws")
    answers = await asyncio.gather(
        *(tickets.redeem(ticket, "ws") for _ in range(50)), return_exceptions=True
    )
    assert answers.count(ME) == 1


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_a_ticket_not_used_within_30_seconds_is_refused(
    tickets: Tickets, clock: Clock, purpose: Purpose
) -> None:
    in_time, late = [await tickets.issue(ME, purpose=purpose) for _ in range(2)]
    clock.now = NOW + 29.9
    assert await tickets.redeem(in_time, purpose) == ME
    clock.now = NOW + 30
    await assert_refused(tickets, late, purpose)


async def test_an_sse_ticket_may_be_presented_again_until_its_token_expires(
    tickets: Tickets, clock: Clock
) -> None:
    ticket = await tickets.issue(ME, purpose="sse")
    for moment in (0, 29, 31, 600, 3599):
        clock.now = NOW + moment
        assert await tickets.redeem(ticket, "sse") == ME
    clock.now = NOW + 3600
    await assert_refused(tickets, ticket, "sse")


@pytest.mark.parametrize("expires_at", [None, NOW + 20 * 3600])
async def test_an_sse_ticket_lives_no_longer_than_12_hours_after_its_first_use(
    tickets: Tickets, clock: Clock, expires_at: float | None
) -> None:
    identity = Identity(user_id="user_123", expires_at=expires_at)
    ticket = await tickets.issue(identity, purpose="sse")
    for moment in (10, 6 * 3600, 12 * 3600):
        clock.now = NOW + moment
        assert await tickets.redeem(ticket, "sse") == identity
    clock.now = NOW + 12 * 3600 + 10
    await assert_refused(tickets, ticket, "sse")


async def test_an_unused_sse_ticket_leaves_the_store_after_30_seconds(
    tickets: Tickets, store: MemoryStore
) -> None:
    await tickets.issue(ME, purpose="sse")
    assert [until for _, until in store.kept.values()] == [NOW + 30]


@pytest.mark.parametrize(("purpose", "other"), [("ws", "sse"), ("sse", "ws")])
async def test_a_ticket_is_for_one_wire_and_not_spent_on_the_other(
    tickets: Tickets, purpose: Purpose, other: Purpose
) -> None:
    ticket = await tickets.issue(ME, purpose=purpose)
    await assert_refused(tickets, ticket, other)
    assert await tickets.redeem(ticket, purpose) == ME


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_a_ticket_does_not_outlive_its_token(
    tickets: Tickets, clock: Clock, purpose: Purpose
) -> None:
    brief = Identity(user_id="user_123", expires_at=NOW + 5)
    ticket = await tickets.issue(brief, purpose=purpose)
    clock.now = NOW + 5
    await assert_refused(tickets, ticket, purpose)
    with pytest.raises(AuthError) as refused:
        await tickets.issue(brief, purpose=purpose)
    assert refused.value.reason == "expired"


@pytest.mark.parametrize(
    "nonsense", ["", "x", "x" * 43, "x" * 42, "x" * 44, "x" * 100_000, "\ud800" * 43, "\u00e9" * 43]
)
@pytest.mark.parametrize("purpose", PURPOSES)
async def test_an_unknown_ticket_is_refused(
    tickets: Tickets, nonsense: str, purpose: Purpose
) -> None:
    await tickets.issue(ME, purpose=purpose)
    await assert_refused(tickets, nonsense, purpose)


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"\xff", b'{"identity":{"user_id":7}}'])
async def test_what_another_version_stored_is_refused(
    tickets: Tickets, store: MemoryStore, value: bytes
) -> None:
    ticket = await tickets.issue(ME, purpose="ws")
    store.kept = {key: (value, until) for key, (_, until) in store.kept.items()}
    await assert_refused(tickets, ticket, "ws")


async def test_wrong_uses_say_so(tickets: Tickets) -> None:
    unknown: Any = "http"
    with pytest.raises(UsageError, match="ws, sse"):
        await tickets.issue(ME, purpose=unknown)
    for claim in (object(), "\ud800"):
        with pytest.raises(UsageError, match="JSON"):
            await tickets.issue(Identity(user_id="u", claims={"a": claim}), purpose="ws")


async def test_a_store_that_is_away_is_no_refusal(tickets: Tickets, store: MemoryStore) -> None:
    ticket = await tickets.issue(ME, purpose="ws")
    store.is_away = True
    with pytest.raises(LogUnavailable):
        await tickets.issue(ME, purpose="ws")
    with pytest.raises(LogUnavailable):
        await tickets.redeem(ticket, "ws")
    store.is_away = False
    assert await tickets.redeem(ticket, "ws") == ME

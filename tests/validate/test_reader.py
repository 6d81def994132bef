"""The readers of a validation show what a server does wrong, and come back like anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from catenary import WebSocketBridgeFactory
from catenary.errors import ValidationFailed
from catenary.position import Position
from catenary.validate.audience import Audience
from catenary.validate.bridges import ServedBridge
from catenary.validate.follower import Follower
from catenary.validate.reader import Reader
from catenary.validate.tap import Tap

from .scripted_server import CLOSE, GREETING, LIVE, ScriptedServer, event, scripted

HELLO = [GREETING, LIVE]


class Elsewhere(ServedBridge):
    """Only the address of a scripted server."""

    def __init__(self, server: ScriptedServer) -> None:
        self._url = server.url

    @property
    def websocket_url(self) -> str:
        return self._url

    def token(self, user_id: str, **claims: Any) -> str:
        return "any"


async def faults(*messages: Any, acknowledged: Sequence[int] = ()) -> list[str]:
    """What an audience says of a server that says this."""
    async with (
        scripted([*HELLO, *messages]) as server,
        Audience(Elsewhere(server)) as audience,
    ):
        (reader,) = await audience.join(["user_123"])
        count = sum("seq" in message for message in messages)
        await reader.until_events(count)
        for seq in acknowledged:
            audience.acknowledged("user_123", Position("k3", seq), f"m{seq}")
        return audience.faults()


async def test_a_server_that_is_right_has_no_fault() -> None:
    assert await faults(event(1), event(2), acknowledged=[1, 2]) == []


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([event(1), event(3)], "hole"),
        ([event(1), event(1)], "double"),
        ([event(2), event(1)], "swap"),
        ([event(1), event(2, "user_456")], "foreign"),
        ([event(1), {"type": "gap", "after": "k3:1", "resumes_at": "k3:5", "reason": "x"}], "told"),
    ],
)
async def test_what_a_server_does_wrong_is_found(
    messages: list[dict[str, Any]], fault: str
) -> None:
    assert any(said.startswith(fault) for said in await faults(*messages))


async def test_an_acknowledged_event_that_never_comes_is_found() -> None:
    said = await faults(event(1), acknowledged=[1, 2])
    assert any("lost" in fault for fault in said)
    assert any("behind" in fault for fault in said)


async def test_a_reader_comes_back_at_its_last_place() -> None:
    """And what comes again by then is a double."""
    async with (
        scripted([*HELLO, event(1), event(2), CLOSE], [GREETING, LIVE, event(3)]) as server,
        Audience(Elsewhere(server)) as audience,
    ):
        (reader,) = await audience.join(["user_123"])
        await reader.until_events(3)
        assert server.asked == ["start", "k3:2"]
        assert len(reader.reconnects) == len(reader.absences) == 1
        assert audience.faults() == []


async def test_garbage_is_a_fault_and_costs_the_connection() -> None:
    async with scripted([*HELLO, "no json"], HELLO) as server:
        reader = Reader(server.url, "user_123", token=None)
        await reader.start()
        await reader.until(lambda: reader.lives == 2)
        await reader.stop()
        assert reader.faults[0].startswith("not a message")


async def test_a_silent_server_is_left() -> None:
    """After 2.5 of its heartbeat intervals."""
    silent = [{**GREETING, "heartbeat_interval": 0.1}, LIVE]
    async with scripted(silent) as server:
        reader = Reader(server.url, "user_123", token=None)
        await reader.start()
        await reader.until(lambda: reader.lives == 2, timeout=5)
        await reader.stop()
        assert reader.close_codes[0] is None


async def test_a_final_refusal_ends_the_attempts() -> None:
    async with scripted(HELLO, statuses=[401]) as server:
        reader = Reader(server.url, "user_123", token=None)
        reader.begin()
        await reader.until(lambda: reader.statuses)
        assert reader._task is not None
        await asyncio.wait([reader._task], timeout=5)
        assert (reader.statuses, reader.attempts, reader.lives) == ([401], 1, 0)


async def test_a_refusal_that_passes_is_tried_again() -> None:
    async with scripted(HELLO, statuses=[503, 503]) as server:
        reader = Reader(server.url, "user_123", token=None)
        await reader.start()
        await reader.stop()
        assert (reader.statuses, reader.lives) == ([503, 503], 1)


async def test_an_outage_does_not_count_as_a_reconnect_of_the_server() -> None:
    """``absences`` count from the loss of what was live, ``reconnects`` from the last break."""
    async with scripted([*HELLO, CLOSE], [CLOSE], [CLOSE], HELLO) as server:
        reader = Reader(server.url, "user_123", token=None)
        await reader.start()
        await reader.until(lambda: reader.lives == 2)
        await reader.stop()
        assert 0 < reader.reconnects[0] < reader.absences[0]


async def test_waiting_in_vain_says_where_the_reader_stands() -> None:
    async with scripted(HELLO) as server:
        reader = Reader(server.url, "user_123", token=None, name="phone")
        await reader.start()
        with pytest.raises(ValidationFailed, match=r"phone was not given 1 events .* live, with 0"):
            await reader.until_events(1, timeout=0.05)
        await reader.stop()


async def test_offline_stays_away_until_it_comes_back() -> None:
    async with scripted(HELLO) as server:
        reader = Reader(server.url, "user_123", token=None)
        await reader.start()
        reader.go_offline()
        await reader.until(lambda: not reader.is_live)
        attempts = reader.attempts
        await asyncio.sleep(0.3)
        assert reader.attempts == attempts
        reader.come_back()
        await reader.until(lambda: reader.is_live)
        await reader.stop()


def bridge() -> ServedBridge:
    return ServedBridge(WebSocketBridgeFactory("memory://?private", run_drain_timeout=0.5))


async def test_an_audience_settles_once_everybody_has_everything() -> None:
    """Readers of the wire, clients of the product, and taps."""
    with bridge() as served:
        async with Audience(served) as audience:
            await audience.join(["user_123", "user_456"])
            (follower,) = await audience.follow(["user_123"])
            tap = await Tap.open(served, "user_123")
            for number in range(20):
                audience.emit("user_123", f"m{number}")
            await audience.settle()
            await tap.until(20, timeout=5)
            tap.leave()
            assert isinstance(follower, Follower)
            assert (audience.events_received, follower.events) == (40, 20)
            assert [arrival.event.seq for arrival in tap.arrivals()] == list(range(1, 21))
            assert all(0 < seconds < 5 for seconds in audience.latencies())
            assert audience.faults() == []


async def test_an_audience_that_does_not_settle_says_who_is_behind() -> None:
    with bridge() as served:
        async with Audience(served) as audience:
            (reader,) = await audience.join(["user_123"])
            reader.go_offline()
            audience.emit("user_123", "m1")
            with pytest.raises(ValidationFailed, match="user_123 #1 was not at"):
                await audience.settle(timeout=0.3)

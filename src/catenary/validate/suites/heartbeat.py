"""Heartbeats: an idle connection lives, a dead one is found, and no proxy cuts for idleness."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

from catenary.limits import Limits
from catenary.validate.audience import Audience
from catenary.validate.chaos import ChaosProxy, Faults, Incident
from catenary.validate.field import Field
from catenary.validate.patience import until
from catenary.validate.peers import peer_process
from catenary.validate.reader import Reader
from catenary.validate.rows import Need, Pace, Scale, Suite
from catenary.validate.wire import Wire

heartbeat = Suite(
    "heartbeat", "A connection is known to live, or known to be dead.", pace=Pace.PATIENT
)

SHORT = 0.4
"""The heartbeat interval of a shortened row; the rows count in intervals."""

PACE, PACE_ELSEWHERE = 0.02, 0.2
"""Seconds between the events of a busy user; each one of a bridge elsewhere is a request."""

IDLE_INTERVALS = 4
"""After so many intervals of silence a proxy cuts: those that wait a minute, at 15 s an interval."""
IDLE_TIMES = 1.5
"""So many times as long as such a proxy waits it is given to cut."""

FEW = 3
"""So many intervals a shortened row waits at a bridge elsewhere, which has intervals of its own."""


def _limits(field: Field) -> Limits:
    return Limits(heartbeat_interval=field.pick(full=15.0, quick=SHORT))


def _interval(field: Field, reader: Reader) -> float:
    """Return the interval that the bridge was given; one elsewhere says it to its readers."""
    if not field.is_elsewhere:
        return _limits(field).heartbeat_interval
    assert reader.connected is not None
    return reader.connected.heartbeat_interval


def _count(field: Field) -> int:
    """Return how many intervals are waited for."""
    return FEW if field.is_elsewhere and field.scale is Scale.QUICK else 10


def _expect_no_drop(field: Field, audience: Audience) -> None:
    for reader in audience.readers:
        field.expect(reader.lives == 1, f"{reader.name} was connected {reader.lives} times")
    field.judge(audience)


@heartbeat.row(
    "idle",
    asked="10 connections idle for 10 intervals (150 s): not one drop, a heartbeat in each interval",
)
async def idle(field: Field) -> str:
    async with field.arranged(_limits(field)) as bridge, field.audience(bridge) as audience:
        readers = await audience.join(field.some_users(10))
        interval, count = _interval(field, readers[0]), _count(field)
        beats = [_count_beats(reader) for reader in readers]
        await asyncio.sleep(count * interval)
        _expect_no_drop(field, audience)
        fewest = min(len(times) for times in beats)
        longest = max((b - a for times in beats for a, b in pairwise(times)), default=0.0)
        few = f"a connection got only {fewest} heartbeats in {count} intervals"
        field.expect(fewest >= count - 2, few)
        bound = 1.5 * interval
        field.expect_speed(longest < bound, f"{longest:.2f} s passed between two heartbeats")
        return (
            f"10 connections, {fewest} heartbeats at least in {count} intervals of {interval:g} s, "
            f"{longest:.2f} s apart at most, 0 drops"
        )


def _count_beats(reader: Reader) -> list[float]:
    """Return the list that grows with each time that something came for the reader."""
    times: list[float] = []
    wire = reader.wire
    assert wire is not None
    take = wire.on_messages

    def taken(wire: Wire, messages: list[bytes], at: float) -> None:
        times.append(at)
        take(wire, messages, at)

    wire.on_messages = taken
    return times


@heartbeat.row(
    "busy",
    asked="10 connections busy for 10 intervals (150 s): not one drop, every event once",
)
async def busy(field: Field) -> str:
    async with field.arranged(_limits(field)) as bridge, field.audience(bridge) as audience:
        users = field.some_users(10)
        readers = await audience.join(users)
        end = time.perf_counter() + _count(field) * _interval(field, readers[0])
        number = 0
        while time.perf_counter() < end:
            await asyncio.to_thread(_note_all, audience, users, number)
            number += 1
            await asyncio.sleep(PACE_ELSEWHERE if field.is_elsewhere else PACE)
        await audience.settle()
        _expect_no_drop(field, audience)
        total = number * len(users)
        field.expect(audience.events_received == total, "not every event came")
        return f"{audience.events_received} of {total} events, 0 drops"


def _note_all(audience: Audience, users: list[str], number: int) -> None:
    for user_id in users:
        audience.emit(user_id, f"{user_id} {number}")


@heartbeat.row(
    "a slow reader",
    asked="a client that takes a little of its backlog in each of 10 intervals (150 s), pings waiting behind it: it is not given up",
)
async def a_slow_reader(field: Field) -> str:
    async with field.arranged(_limits(field)) as bridge, field.audience(bridge) as audience:
        (reader,) = await audience.join(field.some_users(1))
        assert reader.wire is not None
        reader.wire.take_little()
        reader.pause()
        await asyncio.to_thread(_flood, audience, field.user())
        count, interval = _count(field), _interval(field, reader)
        for _ in range(count):
            await asyncio.sleep(interval)
            before = len(reader.arrivals)
            reader.resume()
            await reader.until(lambda n=before: len(reader.arrivals) > n)  # type: ignore[misc]
            reader.pause()
        slowly = len(reader.arrivals)
        reader.resume()
        await audience.settle()
        _expect_no_drop(field, audience)
        return f"{slowly} events in {count} intervals, then the other {200 - slowly}; 0 drops"


def _flood(audience: Audience, user_id: str) -> None:
    for number in range(200):
        audience.emit(user_id, f"{user_id} {number}", pad="x" * 20_000)


@heartbeat.row(
    "behind a proxy that cuts the idle",
    asked="10 idle connections through a proxy that cuts after 4 intervals (60 s) of silence: it never cuts",
    needs=(Need.NETWORK,),
)
async def behind_a_proxy_that_cuts_the_idle(field: Field) -> str:
    async with (
        field.arranged(_limits(field)) as bridge,
        ChaosProxy(bridge.websocket_url, seed=field.seed) as proxy,
        field.audience(bridge) as audience,
    ):
        url = proxy.url_for(bridge.websocket_url)
        users = field.some_users(5)
        readers = await audience.join(users, url=url)
        followers = await audience.follow(users, url=url)
        patience = IDLE_INTERVALS * _interval(field, readers[0])
        proxy.apply(Faults(idle_timeout=patience))
        await asyncio.sleep(IDLE_TIMES * patience)
        cuts = proxy.journal.count(Incident.CUT, Incident.RESET)
        field.expect(not cuts, f"the proxy cut {cuts} connections for idleness")
        _expect_no_drop(field, audience)
        lives = {follower.lives for follower in followers}
        field.expect(lives == {1}, f"clients were connected {lives} times")
        return (
            f"10 idle connections, {IDLE_TIMES:g} times {patience:g} s, through a proxy that cuts "
            f"after {patience:g} s: {cuts} cuts"
        )


async def _find(field: Field, frozen_user: str, *, pad: str) -> str:
    """Freeze a reader, go on sending to all, and wait until the server has let it go."""
    limits = Limits(heartbeat_interval=field.pick(full=15.0, quick=1.0))
    async with field.served(limits=limits) as bridge, field.audience(bridge) as audience:
        other = field.user(1)
        await audience.join([other])
        async with peer_process(bridge, frozen_user) as peer:
            manager = bridge.factory.manager
            await until(lambda: manager.connections(frozen_user), what="the peer is connected")
            peer.freeze()
            last_taken, taken = time.perf_counter(), 0
            began = last_taken
            while connections := list(manager._by_user.get(frozen_user, ())):
                now = time.perf_counter()
                if connections[0].transport.bytes_taken > taken and pad:
                    last_taken, taken = now, connections[0].transport.bytes_taken
                if now - began > 5 * limits.heartbeat_interval:
                    break
                if pad:
                    for number in range(20):
                        data = {"marker": str(number), "pad": pad}
                        bridge.emit(frozen_user, "validate.note", data)
                audience.emit(other, f"{other} {now}")
                await asyncio.sleep(0.02)
            seconds = time.perf_counter() - last_taken
            field.expect(not manager.connections(frozen_user), "the frozen peer was not found")
        await audience.settle()
        field.judge(audience)
        intervals = seconds / limits.heartbeat_interval
        # It is looked at five times an interval.
        field.expect_speed(intervals <= 2.5 + 2 / 5, f"found after {intervals:.2f} intervals")
        field.figure("found_after_intervals", intervals, "intervals")
        return f"found after {intervals:.2f} intervals; the other reader has every event"


@heartbeat.row(
    "a frozen peer",
    asked="an idle client that is frozen (SIGSTOP) is found within 2.5 intervals and a look",
    needs=(Need.OWN_BRIDGE, Need.PROCESS),
)
async def a_frozen_peer(field: Field) -> str:
    return await _find(field, field.user(), pad="")


@heartbeat.row(
    "a frozen peer that is sent to",
    asked="a client frozen while it is flooded is found 2.5 intervals after its socket's last byte",
    needs=(Need.OWN_BRIDGE, Need.PROCESS),
)
async def a_frozen_peer_that_is_sent_to(field: Field) -> str:
    return await _find(field, field.user(), pad="x" * 20_000)

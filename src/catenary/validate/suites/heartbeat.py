"""Heartbeats: an idle connection lives, a dead one is found, and no proxy cuts for idleness."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

from catenary.limits import Limits
from catenary.validate.audience import Audience
from catenary.validate.field import Field
from catenary.validate.patience import until
from catenary.validate.peers import peer_process
from catenary.validate.reader import Reader
from catenary.validate.rows import Need, Pace, Suite
from catenary.validate.wire import Wire

heartbeat = Suite(
    "heartbeat", "A connection is known to live, or known to be dead.", pace=Pace.PATIENT
)

SHORT = 0.4
"""The heartbeat interval of a shortened row; the rows count in intervals."""


def _limits(field: Field) -> Limits:
    return Limits(heartbeat_interval=field.pick(full=15.0, quick=SHORT))


def _expect_no_drop(field: Field, audience: Audience) -> None:
    for reader in audience.readers:
        field.expect(reader.lives == 1, f"{reader.name} was connected {reader.lives} times")
    field.judge(audience)


@heartbeat.row(
    "idle",
    asked="10 connections idle for 10 intervals (150 s): not one drop, a heartbeat in each interval",
    needs=(Need.OWN_BRIDGE,),
)
async def idle(field: Field) -> str:
    limits = _limits(field)
    async with field.served(limits=limits) as bridge, field.audience(bridge) as audience:
        readers = await audience.join(field.some_users(10))
        beats = [_count_beats(reader) for reader in readers]
        await asyncio.sleep(10 * limits.heartbeat_interval)
        _expect_no_drop(field, audience)
        fewest = min(len(times) for times in beats)
        longest = max(b - a for times in beats for a, b in pairwise(times))
        field.expect(fewest >= 8, f"a connection got only {fewest} heartbeats in 10 intervals")
        bound = 1.5 * limits.heartbeat_interval
        field.expect_speed(longest < bound, f"{longest:.2f} s passed between two heartbeats")
        return (
            f"10 connections, {fewest} heartbeats at least, {longest:.2f} s apart at most, 0 drops"
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
    needs=(Need.OWN_BRIDGE,),
)
async def busy(field: Field) -> str:
    limits = _limits(field)
    async with field.served(limits=limits) as bridge, field.audience(bridge) as audience:
        users = field.some_users(10)
        await audience.join(users)
        end = time.perf_counter() + 10 * limits.heartbeat_interval
        number = 0
        while time.perf_counter() < end:
            for user_id in users:
                audience.emit(user_id, f"{user_id} {number}")
            number += 1
            await asyncio.sleep(0.02)
        await audience.settle()
        _expect_no_drop(field, audience)
        total = number * len(users)
        field.expect(audience.events_received == total, "not every event came")
        return f"{audience.events_received} of {total} events, 0 drops"


@heartbeat.row(
    "a slow reader",
    asked="a client that takes a little of its backlog in each of 10 intervals (150 s), pings waiting behind it: it is not given up",
    needs=(Need.OWN_BRIDGE,),
)
async def a_slow_reader(field: Field) -> str:
    limits = _limits(field)
    async with field.served(limits=limits) as bridge, field.audience(bridge) as audience:
        (reader,) = await audience.join(field.some_users(1))
        assert reader.wire is not None
        reader.wire.take_little()
        reader.pause()
        for number in range(200):
            audience.emit(field.user(), f"{field.user()} {number}", pad="x" * 20_000)
        for _ in range(10):
            await asyncio.sleep(limits.heartbeat_interval)
            before = len(reader.arrivals)
            reader.resume()
            await reader.until(lambda n=before: len(reader.arrivals) > n)  # type: ignore[misc]
            reader.pause()
        slowly = len(reader.arrivals)
        reader.resume()
        await audience.settle()
        _expect_no_drop(field, audience)
        return f"{slowly} events in 10 intervals, then the other {200 - slowly}; 0 drops"


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

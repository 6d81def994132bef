"""Lifecycle: a session through all that can happen to its connection and to its store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from catenary.errors import CloseCode
from catenary.factory import WebSocketBridgeFactory
from catenary.validate.audience import Audience
from catenary.validate.bridges import ServedBridge
from catenary.validate.chaos import ChaosProxy, Faults
from catenary.validate.crowd import together
from catenary.validate.field import Field
from catenary.validate.processes import BridgeProcess
from catenary.validate.reader import Reader
from catenary.validate.results import quantile
from catenary.validate.rows import Need, Pace, Suite
from catenary.validate.stores import RedisServer

lifecycle = Suite(
    "lifecycle", "A session outlives its connections, and waits for a store that is slow."
)

Breaking = Callable[[Audience, Reader], Awaitable[None]]


async def _session(field: Field, breaking: Breaking, *, rounds: int = 3) -> str:
    """Send 10 events, break the connection in some way, and again; all must come."""
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))
        for number in range(rounds):
            await asyncio.to_thread(_ten, audience, field.user(), number)
            await breaking(audience, reader)
        await asyncio.to_thread(_ten, audience, field.user(), rounds)
        await audience.settle()
        field.judge(audience)
        got = len(reader.arrivals)
        expected = 10 * (rounds + 1)
        field.expect(got == expected, f"{got} of {expected} events came")
        field.evidence.reconnects += reader.reconnects
        return f"{got} of {expected} events over {reader.lives} connections"


def _ten(audience: Audience, user_id: str, number: int) -> None:
    for message in range(10):
        audience.emit(user_id, f"{number}-{message}")


async def _again(reader: Reader, lives: int) -> None:
    await reader.until(lambda: reader.lives > lives and reader.is_live, what="live again")


@lifecycle.row("normal reconnects", asked="3 connections closed in order: 40 of 40 events")
async def normal(field: Field) -> str:
    async def leave(_: Audience, reader: Reader) -> None:
        lives = reader.lives
        assert reader.wire is not None
        reader.wire.leave()
        await _again(reader, lives)

    return await _session(field, leave)


@lifecycle.row("dropped connections", asked="3 connections cut without a word: 40 of 40 events")
async def dropped(field: Field) -> str:
    async def cut(_: Audience, reader: Reader) -> None:
        lives = reader.lives
        reader.cut()
        await _again(reader, lives)

    return await _session(field, cut)


@lifecycle.row(
    "rapid reconnects", asked="15 connections cut as soon as they are live: 160 of 160 events"
)
async def rapid(field: Field) -> str:
    async def cut(_: Audience, reader: Reader) -> None:
        lives = reader.lives
        reader.cut()
        await _again(reader, lives)

    return await _session(field, cut, rounds=15)


@lifecycle.row(
    "delayed reconnects", asked="away for a while 3 times, sent to meanwhile: all events"
)
async def delayed(field: Field) -> str:
    async def stay_away(_: Audience, reader: Reader) -> None:
        reader.go_offline()
        await reader.until(lambda: not reader.is_live, what="offline")
        await asyncio.sleep(field.pick(full=2.0, quick=0.2))
        lives = reader.lives
        reader.come_back()
        await _again(reader, lives)

    return await _session(field, stay_away)


@lifecycle.row(
    "concurrent reconnects",
    asked="10 tabs of one user are cut at once, 3 times: each has all 40 events",
)
async def concurrent(field: Field) -> str:
    async with field.audience() as audience:
        readers = await audience.join([field.user()] * 10)
        for number in range(3):
            await asyncio.to_thread(_ten, audience, field.user(), number)
            lives = [reader.lives for reader in readers]
            for reader in readers:
                reader.cut()
            await together(
                _again(reader, before) for reader, before in zip(readers, lives, strict=True)
            )
        await asyncio.to_thread(_ten, audience, field.user(), 3)
        await audience.settle()
        field.judge(audience)
        for reader in readers:
            field.expect(len(reader.arrivals) == 40, f"{reader.name}: {len(reader.arrivals)} of 40")
            field.evidence.reconnects += reader.reconnects
        return f"{audience.events_received} of 400 events at 10 tabs, each cut 3 times"


@lifecycle.row(
    "a restart in order",
    asked="a bridge on a file is stopped in order and started again: its 5 readers are told that it closes and when to come back, and have all events",
    needs=(Need.PROCESS,),
    pace=Pace.PATIENT,
)
async def a_restart_in_order(field: Field) -> str:
    async with (
        field.log_file() as log,
        BridgeProcess.on_a_free_port(log=log) as bridge,
        field.audience(bridge) as audience,
    ):
        readers = await audience.join([field.user()] * 5)
        await asyncio.to_thread(_ten, audience, field.user(), 0)
        await audience.settle()
        status = await bridge.stop()
        await bridge.start()
        await together(_again(reader, 1) for reader in readers)
        await asyncio.to_thread(_ten, audience, field.user(), 1)
        await audience.settle()
        field.judge(audience)
        field.expect(status == 0, f"the server ended with status {status}")
        for reader in readers:
            codes = [code for code in reader.close_codes if code is not None]
            field.expect(codes == [CloseCode.RESTARTING], f"{reader.name} was closed with {codes}")
            waits = [closing.reconnect_after for closing in reader.closings]
            field.expect(len(waits) == 1 and waits[0], f"{reader.name} was told to wait {waits}")
            field.expect(len(reader.arrivals) == 20, f"{reader.name}: {len(reader.arrivals)} of 20")
        return f"{audience.events_received} of 100 events; {len(readers)} readers told of the close"


@lifecycle.row(
    "a server that lost all",
    asked="a bridge in memory is killed and started again: its reader is told of the loss, and has all that follows",
    needs=(Need.PROCESS,),
    pace=Pace.PATIENT,
)
async def a_server_that_lost_all(field: Field) -> str:
    async with (
        BridgeProcess.on_a_free_port(log="memory://") as bridge,
        field.audience(bridge) as audience,
    ):
        (reader,) = await audience.join(field.some_users(1))
        for number in range(2):
            await asyncio.to_thread(_ten, audience, field.user(), number)
            await audience.settle()
            if number == 0:
                await bridge.kill()
                await bridge.start()
                await _again(reader, 1)
        field.judge(audience, losses_are_told=True)
        reasons = [gap.reason for gap in reader.gaps]
        field.expect(reasons == ["epoch"], f"the reader was told of {reasons}")
        field.expect(len(reader.arrivals) == 20, f"{len(reader.arrivals)} of 20 events came")
        return f"{len(reader.arrivals)} of 20 events, and a gap between them"


async def _with_redis(field: Field, delay_ms: int) -> str:
    """Connect and deliver while each answer of the store comes late."""
    faults = Faults(delay=delay_ms / 2000)
    bound = delay_ms / 1000 + 1.0
    async with RedisServer() as redis, ChaosProxy(redis.port, faults=faults) as network:
        log = f"redis://127.0.0.1:{network.port}/0"
        async with field.served(log=log) as bridge, field.audience(bridge) as audience:
            # The first ones pay for what the whole node needs once: its scripts and connections.
            warm = [audience.reader(field.user(number)) for number in range(1, 6)]
            await together(reader.start(timeout=45) for reader in warm)
            for reader in warm:
                audience.emit(reader.user_id, f"{reader.user_id} warm")
            await audience.settle(timeout=30)
            user_id = field.user()
            reader = audience.reader(user_id)
            began = time.perf_counter()
            reader.begin()
            await reader.until_greeted()
            greeted = time.perf_counter() - began
            await reader.until(lambda: reader.is_live, timeout=20, what="live")
            events = field.pick(full=20, quick=5 if delay_ms < 500 else 3)
            for number in range(events):
                audience.emit(user_id, f"{user_id} {number}")
                # Twice the time of an answer: what one event waited for holds up no other.
                await asyncio.sleep(0.02 + 2 * delay_ms / 1000)
            await audience.settle(timeout=30)
            field.judge(audience)
            latencies = audience.latencies([reader])
            median, slowest = quantile(latencies, 0.5), max(latencies)
            field.latencies(latencies)
            # A connect asks the store three times, one after the other: to be woken, for the
            # head, for its place.
            field.expect_speed(
                greeted <= bound + 2 * delay_ms / 1000, f"the greeting took {greeted:.2f} s"
            )
            field.expect_speed(median <= bound, f"an event took {median:.2f} s in the median")
            # One that comes while the lease of its node is renewed waits for that answer too.
            field.expect_speed(slowest <= bound + delay_ms / 1000, f"an event took {slowest:.2f} s")
            return (
                f"greeted after {greeted * 1000:.0f} ms, {events} of {events} events, {median * 1000:.0f} ms "
                f"after their emission in the median, {slowest * 1000:.0f} ms at the slowest"
            )


def _add_slow_store(delay_ms: int) -> None:
    @lifecycle.row(
        f"Redis {delay_ms} ms slow",
        asked=f"each answer of Redis comes {delay_ms} ms late: a connect (three answers) and delivery (one) hold, ≤ 1 s above that",
        needs=(Need.OWN_BRIDGE, Need.REDIS),
        timeout=60 + delay_ms / 20,
        pace=Pace.PATIENT,
    )
    async def slow_store(field: Field) -> str:
        return await _with_redis(field, delay_ms)


for _delay_ms in (0, 50, 100, 200, 500, 1000):
    _add_slow_store(_delay_ms)


@lifecycle.row(
    "Redis absent",
    asked="without Redis: not ready, 503 that says so; ready and serving by itself once it is there",
    needs=(Need.OWN_BRIDGE, Need.REDIS),
    timeout=60,
    pace=Pace.PATIENT,
)
async def redis_absent(field: Field) -> str:
    redis = RedisServer()
    bridge = ServedBridge(WebSocketBridgeFactory(redis.url, run_drain_timeout=0.5))
    try:
        await asyncio.to_thread(bridge.start)
        async with bridge.http() as http, field.audience(bridge) as audience:
            early = await http.get("/readyz")
            field.expect(early.status_code == 503, f"/readyz answered {early.status_code}")
            field.expect("the event log is not there yet" in early.text, f"/readyz: {early.text}")
            reader = audience.reader(field.user())
            reader.begin()
            await reader.until(lambda: reader.statuses, what="answered")
            began = time.perf_counter()
            await redis.start()
            await reader.until(lambda: reader.is_live, timeout=30, what="live")
            seconds = time.perf_counter() - began
            audience.emit(field.user(), "after")
            await audience.settle()
            field.judge(audience)
            field.expect(set(reader.statuses) == {503}, f"answered {reader.statuses}")
        return f"503 while it is absent; live {seconds:.1f} s after it came"
    finally:
        await asyncio.to_thread(bridge.stop)
        await redis.__aexit__(None, None, None)

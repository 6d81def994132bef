"""Chaos: a network that breaks in every way that networks do, and readers who end with everything."""

from __future__ import annotations

import asyncio
import time

from catenary.limits import Limits
from catenary.validate.chaos import (
    CALM,
    LEVELS,
    Action,
    ChaosProxy,
    Faults,
    Incident,
    random_cuts,
    rapid_cuts,
    together,
)  # fmt: skip
from catenary.validate.field import Field
from catenary.validate.follower import Follower
from catenary.validate.patience import until
from catenary.validate.results import quantile
from catenary.validate.rows import Need, Pace, Suite
from catenary.validate.suites.network import Network, judge_network, network
from catenary.validate.tls import Certificate

chaos = Suite(
    "chaos", "However the network breaks, every client ends with every event.", pace=Pace.PATIENT
)

NETWORK = (Need.NETWORK,)
TLS = (Need.TLS,)
PATIENCE = 25.0


async def _through(field: Field, faults: Faults, *, certificate: Certificate | None = None) -> str:
    """Talk through a network with faults; once it is calm, everybody must have everything."""
    events = field.pick(full=600, quick=120)
    users = field.pick(full=10, quick=4)
    async with network(field, faults, users=users, certificate=certificate) as through:
        await through.talk(events, 0.02)
        through.proxy.apply(CALM)
        await through.settle(timeout=PATIENCE)
        return judge_network(field, through)


@chaos.row(
    "medium",
    asked="25 % of connections cut, 50-200 ms: every client ends with every event; reconnects ≤ 3 s",
    needs=NETWORK,
)
async def medium(field: Field) -> str:
    return await _through(field, LEVELS["medium"])


@chaos.row(
    "high",
    asked="45 % cut, 100-500 ms, 15 % corrupted (over TLS): every event, nothing altered; reconnects ≤ 3 s",
    needs=TLS,
    timeout=60,
)
async def high(field: Field) -> str:
    return await _through(field, LEVELS["high"], certificate=Certificate())


@chaos.row(
    "latency only",
    asked="100-500 ms with jitter: every event, in order, without a reconnect",
    needs=NETWORK,
)
async def latency_only(field: Field) -> str:
    events = field.pick(full=600, quick=120)
    async with network(field, LEVELS["latency"]) as through:
        await through.talk(events, 0.02)
        await through.settle(timeout=PATIENCE)
        _expect_one_life(field, through)
        field.latencies(through.audience.latencies())
        return judge_network(field, through)


def _expect_one_life(field: Field, through: Network) -> None:
    lives = [reader.lives for reader in through.readers]
    lives += [follower.lives for follower in through.audience.followers]
    field.expect(set(lives) == {1}, f"readers were connected {lives} times")


@chaos.row(
    "corruption only",
    asked="30 % of records corrupted, over TLS: every event, and nothing that was altered is believed",
    needs=TLS,
    timeout=60,
)
async def corruption_only(field: Field) -> str:
    return await _through(field, LEVELS["corruption"], certificate=Certificate())


@chaos.row(
    "corruption on plain ws",
    asked="30 % of chunks corrupted on ws://: what framing sees is closed; others and the log are unharmed",
    needs=NETWORK,
)
async def corruption_on_plain_ws(field: Field) -> str:
    events = field.pick(full=400, quick=80)
    async with network(field, users=2) as through, field.audience(through.bridge) as clear:
        await clear.join(through.users)
        through.proxy.apply(LEVELS["corruption"])
        await through.talk(events, 0.02)
        through.proxy.apply(CALM)
        await clear.join(through.users)
        for reader in clear.readers:
            await reader.until_events(events)
        field.judge(clear)
        closed = sum(len(reader.close_codes) for reader in through.readers)
        altered = through.proxy.journal.count(Incident.CORRUPTED)
        field.expect(altered, "nothing was corrupted")
        field.expect(closed, "no corrupted connection was closed")
        whole = len(clear.readers)
        return f"{altered} chunks altered, {closed} connections closed; {whole} clear readers whole"


@chaos.row(
    "15 rapid reconnects",
    asked="cut 15 times in quick succession, on an idle loopback: every event; reconnects ≤ 100 ms in the median",
    needs=NETWORK,
)
async def rapid_reconnects(field: Field) -> str:
    async with network(field, users=2) as through:
        script = rapid_cuts(15, interval=0.2, seed=field.seed)
        events = int(script.duration / 0.03)
        playing = asyncio.create_task(through.proxy.play(script))
        await through.talk(events, 0.03)
        await playing
        await through.settle(timeout=PATIENCE)
        reconnects = [seconds for reader in through.readers for seconds in reader.reconnects]
        median = quantile(reconnects, 0.5)
        field.expect_speed(median <= 0.1, f"the median is {median * 1000:.0f} ms")
        return judge_network(field, through)


@chaos.row(
    "reconnects of the client",
    asked="the product's client, cut on an idle loopback: live again after ≤ 100 ms in the median of 20; cut again and again: after ≤ 3 s at the worst",
    needs=NETWORK,
)
async def reconnects_of_the_client(field: Field) -> str:
    async with field.arranged(Limits()) as bridge, field.audience(bridge) as audience:
        first: list[float] = []
        again: list[float] = []
        for user_id in field.some_users(20):
            async with ChaosProxy(bridge.websocket_url) as proxy:
                (follower,) = await audience.follow(
                    [user_id], url=proxy.url_for(bridge.websocket_url)
                )
                first.append(await _cut(proxy, follower))
                if user_id == field.users[-1]:
                    rounds = range(field.pick(full=14, quick=4))
                    again += [await _cut(proxy, follower) for _ in rounds]
                await follower.stop()
        median, worst = quantile(first, 0.5), max(again)
        field.evidence.reconnects += first
        field.figure("client_reconnect_median", median * 1000, "ms")
        field.expect_speed(median <= 0.1, f"the median is {median * 1000:.0f} ms")
        field.expect_speed(worst <= 3.0, f"the worst in a row took {worst:.1f} s")
        return (
            f"median {median * 1000:.0f} ms of {len(first)} clients; "
            f"{len(again)} more times in a row, worst {worst:.2f} s"
        )


async def _cut(proxy: ChaosProxy, follower: Follower) -> float:
    """Cut a client; return how long it took to be live again."""
    before, began = follower.lives, time.perf_counter()
    proxy.apply(Action.RESET)
    await until(lambda: follower.lives > before, what=f"{follower.name} is live again")
    return time.perf_counter() - began


@chaos.row(
    "half-open",
    asked="all connections go silent, their sockets open: found by the missing heartbeat, every event",
    needs=NETWORK,
)
async def half_open(field: Field) -> str:
    async with network(field) as through:
        await through.talk(20, 0.01)
        through.proxy.apply(Action.HALF_OPEN)
        await through.talk(60, 0.02)
        await through.settle(timeout=PATIENCE)
        lives = {reader.lives for reader in through.readers}
        field.expect(lives == {2}, f"readers were live {lives} times")
        return judge_network(field, through)


@chaos.row(
    "stalls",
    asked="nothing moves for a second, twice: every event, and nobody is given up for it",
    needs=NETWORK,
)
async def stalls(field: Field) -> str:
    async with network(field) as through:
        for _ in range(2):
            await through.talk(20, 0.01)
            through.proxy.apply(Action.STALL)
            await through.talk(50, 0.02)
            through.proxy.apply(Action.GO_ON)
        await through.settle(timeout=PATIENCE)
        _expect_one_life(field, through)
        return judge_network(field, through)


@chaos.row(
    "a slow link", asked="30 kB/s: every event, in the time that the link needs", needs=NETWORK
)
async def a_slow_link(field: Field) -> str:
    async with network(field, Faults(bytes_per_second=30_000), users=2) as through:
        await through.talk(150, 0.005)
        await through.settle(timeout=PATIENCE)
        return judge_network(field, through)


@chaos.row(
    "single bytes",
    asked="everything comes in pieces of 1 to 3 bytes, the handshake too: every event",
    needs=NETWORK,
)
async def single_bytes(field: Field) -> str:
    async with network(field, Faults(split_bytes=3), users=2) as through:
        for reader in through.readers:
            reader.cut()
        await through.talk(40, 0.01)
        await through.settle(timeout=PATIENCE)
        return judge_network(field, through)


@chaos.row(
    "lost packets",
    asked="10 % of packets lost and retransmitted: every event, in order",
    needs=NETWORK,
)
async def lost_packets(field: Field) -> str:
    async with network(field, Faults(loss=0.1, retransmit=0.2)) as through:
        await through.talk(100, 0.02)
        await through.settle(timeout=PATIENCE)
        return judge_network(field, through)


@chaos.row(
    "a change of address",
    asked="the client's address changes 3 times, the old path going silent: every event",
    needs=(Need.NETWORK, Need.ADDRESSES),
)
async def a_change_of_address(field: Field) -> str:
    async with network(field) as through:
        for _ in range(3):
            await through.talk(20, 0.01)
            through.proxy.apply(Action.CHANGE_ADDRESS)
            for reader in through.readers:
                reader.cut()  # a phone's system ends what was bound to the address that it lost
        await through.talk(20, 0.01)
        await through.settle(timeout=PATIENCE)
        return judge_network(field, through)


@chaos.row(
    "an outage",
    asked="the network is away for 2 s and refuses everybody: every event once it is back",
    needs=NETWORK,
)
async def an_outage(field: Field) -> str:
    async with network(field) as through:
        await through.talk(20, 0.01)
        through.proxy.apply(Action.HALF_OPEN)
        through.proxy.apply(Action.REFUSE)
        await through.talk(100, 0.02)
        through.proxy.apply(Action.ACCEPT)
        await through.settle(timeout=PATIENCE)
        return judge_network(field, through)


@chaos.row(
    "all together",
    asked="45 % cut, delayed, corrupted, throttled, split, stalled, lost, refused, cut at random (over TLS): every event",
    needs=TLS,
    timeout=90,
)
async def all_together(field: Field) -> str:
    events = field.pick(full=600, quick=120)
    faults, certificate = LEVELS["everything"], Certificate()
    async with network(field, faults, users=3, certificate=certificate) as through:
        duration = events * 0.03
        script = together(
            random_cuts(duration, per_second=0.5, seed=field.seed),
            rapid_cuts(5, interval=0.4, seed=field.seed),
        )
        playing = asyncio.create_task(through.proxy.play(script))
        await through.talk(events, 0.03)
        await playing
        through.proxy.apply(CALM)
        await through.settle(timeout=60)
        return judge_network(field, through)

"""Performance: how long an event takes, how many a second, and what it costs."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import psutil
from prometheus_client.parser import text_string_to_metric_families

from catenary.validate.crowd import together
from catenary.validate.field import Field
from catenary.validate.processes import BridgeProcess
from catenary.validate.results import Better, quantile
from catenary.validate.rows import Need, Suite
from catenary.validate.tap import Tap

performance = Suite("performance", "Fast enough that a person never waits for the bridge.")

PADDING = (4000, 4000)
"""Large enough that an event which is kept although it need not be shows beside the noise."""

ORDERED_RUNS = 9
"""How often the ordering run is repeated: its median is what counts, for it lasts milliseconds."""


class Loaded(NamedTuple):
    """What became of a load: its taps, and its seconds from first emission to last receipt."""

    taps: list[Tap]
    events: int
    seconds: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def latencies(self) -> list[float]:
        """From the call of the verb to the receipt, in seconds."""
        return [a.at - a.event.data["sent_at"] for tap in self.taps for a in tap.arrivals()]


async def _load(field: Field, bridge: BridgeProcess, users: list[str], **wish: Any) -> Loaded:
    """Let threads of the server emit, and wait until the users' taps have all of it."""
    taps = await together(Tap.open(bridge, user_id) for user_id in users)
    events = int(wish["events"])
    taps[0].say({"type": "validate.load", "id": users[0], "data": {"users": users, **wish}})
    await together(tap.until(events, timeout=60) for tap in taps)
    for tap in taps:
        tap.leave()
        seqs = [arrival.event.seq for arrival in tap.arrivals()]
        field.expect(seqs == list(range(1, events + 1)), f"{tap.user_id}: not 1 to {events}")
        numbers = [int(a.event.data["marker"].rpartition(" ")[2]) for a in tap.arrivals()]
        field.expect(numbers == list(range(events)), f"{tap.user_id}: not in order")
    first = min(tap.arrivals()[0].event.data["sent_at"] for tap in taps)
    last = max(tap.arrivals()[-1].at for tap in taps)
    return Loaded(taps, events * len(taps), last - first)


@performance.row(
    "latency",
    asked="1,000 events at 1,000/s: P50 < 10, P95 < 30, P99 < 50 ms (the goal: P50 0.2, P99 5 ms)",
    needs=(Need.PROCESS,),
)
async def latency(field: Field) -> str:
    async with BridgeProcess.on_a_free_port() as bridge:
        loaded = await _load(field, bridge, field.some_users(10), events=100, rate=100)
        p50, p95, p99 = field.latencies(loaded.latencies)
        field.expect_speed(p50 < 10, f"P50 is {p50:.1f} ms")
        field.expect_speed(p95 < 30, f"P95 is {p95:.1f} ms")
        field.expect_speed(p99 < 50, f"P99 is {p99:.1f} ms")
        return f"P50 {p50:.2f}, P95 {p95:.2f}, P99 {p99:.2f} ms"


@performance.row(
    "latency of what is published",
    asked="200 events published one after the other: from the call to the reader P50 < 50, P99 < 500 ms",
)
async def latency_of_what_is_published(field: Field) -> str:
    async with field.audience() as audience:
        await audience.join(field.some_users(1))

        def emit() -> None:
            for number in range(200):
                audience.emit(field.user(), f"0-{number}").result(10)

        await asyncio.to_thread(emit)
        await audience.settle()
        field.judge(audience)
        p50, p95, p99 = field.latencies(audience.latencies())
        field.expect_speed(p50 < 50, f"P50 is {p50:.1f} ms")
        field.expect_speed(p99 < 500, f"P99 is {p99:.1f} ms")
        return f"P50 {p50:.2f}, P95 {p95:.2f}, P99 {p99:.2f} ms"


@performance.row(
    "30 users × 50", asked="30 users × 50 events at once: 1,500 of 1,500", needs=(Need.PROCESS,)
)
async def thirty_users(field: Field) -> str:
    async with BridgeProcess.on_a_free_port() as bridge:
        users = field.some_users(30)
        loaded = await _load(field, bridge, users, events=50, threads=30, burst=50)
        _, _, p99 = field.latencies(loaded.latencies)
        return (
            f"{loaded.events} of 1,500 events in {loaded.seconds * 1000:.0f} ms, P99 {p99:.1f} ms"
        )


@performance.row(
    "5,000 events",
    asked="5,000 events as fast as they go: ≥ 1,000/s from the first emission to the last receipt",
    needs=(Need.PROCESS,),
)
async def five_thousand(field: Field) -> str:
    async with BridgeProcess.on_a_free_port() as bridge:
        users = field.some_users(10)
        process = psutil.Process(bridge.pid)
        before = _cpu(process)
        loaded = await _load(field, bridge, users, events=500, burst=32)
        cpu = (_cpu(process) - before) / loaded.events * 1e6
        begin = field.began_at
        field.evidence.arrivals += [
            arrival.at - begin for tap in loaded.taps for arrival in tap.arrivals()
        ]
        field.figure("throughput", loaded.rate, "events/s", better=Better.HIGHER)
        field.figure("cpu_per_event", cpu, "µs")
        field.expect_speed(loaded.rate >= 1000, f"{loaded.rate:,.0f}/s")
        return (
            f"{loaded.rate:,.0f} events/s; {cpu:.1f} µs of the server's CPU each, connects included"
        )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@performance.row(
    "100 connects",
    asked="100 connects, 10 at a time: P99 < 500 ms from the first packet to the greeting",
)
async def hundred_connects(field: Field) -> str:
    async with field.audience() as audience:
        seconds: list[float] = []

        async def connect(numbers: range) -> None:
            for number in numbers:
                reader = audience.reader(field.user(number))
                began = time.perf_counter()
                reader.begin()
                await reader.until_greeted()
                seconds.append(time.perf_counter() - began)

        await together(connect(range(begin, 100, 10)) for begin in range(10))
        codes = {code for reader in audience.readers for code in reader.close_codes}
        field.expect(not codes, f"connections were closed with {codes}")
        p50, p99 = (quantile(seconds, share) * 1000 for share in (0.5, 0.99))
        field.figure("connect_p99", p99, "ms")
        field.expect_speed(p99 < 500, f"P99 is {p99:.0f} ms")
        return f"P50 {p50:.1f}, P99 {p99:.1f} ms for {len(seconds)} connects"


@performance.row(
    "ordering run",
    asked=f"1,200 messages of 8 streams, in order: ≥ 38,245/s (the median of {ORDERED_RUNS} runs)",
    needs=(Need.PROCESS,),
)
async def ordering_run(field: Field) -> str:
    async with BridgeProcess.on_a_free_port() as bridge:
        rates: list[float] = []
        for run in range(ORDERED_RUNS):
            users = [f"{field.user(number)}-{run}" for number in range(8)]
            loaded = await _load(field, bridge, users, events=150, threads=8, burst=150)
            rates.append(loaded.rate)
        rate = quantile(rates, 0.5)
        field.figure("ordering_rate", rate, "events/s", better=Better.HIGHER)
        field.expect_speed(rate >= 38_245, f"the median is {rate:,.0f}/s")
        return f"{rate:,.0f} events/s in the median, {min(rates):,.0f} to {max(rates):,.0f}"


@performance.row(
    "memory and CPU",
    asked="20 users at 50 events/s of 4 kB for 10 s: memory flat beyond what the log retains, CPU an event too",
    needs=(Need.PROCESS,),
)
async def memory_and_cpu(field: Field) -> str:
    seconds = field.pick(full=10.0, quick=3.0)
    async with BridgeProcess.on_a_free_port() as bridge:
        process = psutil.Process(bridge.pid)
        users = field.some_users(20)
        events = int(seconds / 2 * 50)
        await _load(field, bridge, [f"{user_id}-warm" for user_id in users], events=25, rate=50)
        looks = [await _look(bridge, process)]
        for half in ("first", "second"):
            named = [f"{user_id}-{half}" for user_id in users]
            await _load(field, bridge, named, events=events, rate=50, size_bytes=PADDING)
            looks.append(await _look(bridge, process))
        return _judge_looks(field, looks, events * len(users))


class _Look(NamedTuple):
    cpu: float
    resident_bytes: int
    retained_bytes: float


async def _look(bridge: BridgeProcess, process: psutil.Process) -> _Look:
    async with bridge.http() as http:
        text = (await http.get("/metrics")).text
    retained = next(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "catenary_log_retained_bytes"
    )
    return _Look(_cpu(process), process.memory_info().rss, retained)


def _judge_looks(field: Field, looks: list[_Look], events: int) -> str:
    before, middle, after = looks
    grown = after.resident_bytes - middle.resident_bytes
    kept = after.retained_bytes - middle.retained_bytes
    first, second = ((b.cpu - a.cpu) / events * 1e6 for a, b in ((before, middle), (middle, after)))
    # A record takes some memory beside its bytes: its object, its number, its place in lists.
    beyond = grown - 1.25 * kept
    field.figure("cpu_per_event", second, "µs")
    field.figure("resident", after.resident_bytes / 2**20, "MiB")
    field.expect(beyond < 4 * 2**20, f"{beyond / 2**20:.1f} MiB grew beyond what is retained")
    field.expect_speed(
        second < 2 * first + 5, f"an event cost {first:.0f} µs, then {second:.0f} µs"
    )
    return (
        f"{after.resident_bytes / 2**20:.0f} MiB resident, in the second half {grown / 2**20:+.1f} MiB "
        f"({kept / 2**20:.1f} MiB of it retained events); {first:.0f} µs an event, then {second:.0f} µs"
    )

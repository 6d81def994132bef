"""
Several nodes over one Redis, or over shards: what each event costs on a node and on Redis, and where the knee is.

Each user has one connection. With ``beside`` an agent runs on the node that has
its user's connection, with ``across`` on another one, so that every event goes
through Redis and is heard. The rate is raised until clearly less is acknowledged
or delivered in time than was asked for: the last rate before that is the knee.
Prints a table, or JSON lines.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import sys
import tempfile
from argparse import Namespace
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from append import cpu_of, free_port, redis
from load import Load, Reader
from redis import Redis
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RATES = (1_000, 2_000, 4_000, 8_000, 12_000, 16_000, 24_000, 32_000)
ENOUGH = 0.9
"""So much of what was asked for has to be acknowledged, and delivered, within the window."""

SETTLE_SECONDS = 1.0
EVENTS = 10
"""Quiet users get so many, twice, one in 2 s."""

IDLE_SECONDS = 36
"""Two heartbeats, and one comparison of heads."""


class Node:
    """A process that serves and emits."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    async def window(self, users: list[str], rate: float, seconds: float) -> dict[str, float]:
        """Let it emit for users."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        wish = {"users": users, "rate": rate, "seconds": seconds}
        self.process.stdin.write(json.dumps(wish).encode() + b"\n")
        found: dict[str, float] = json.loads(await self.process.stdout.readline())
        return found


class Store:
    """The Redis under measurement, one or several shards, and what they have used together."""

    def __init__(self, servers: list[tuple[str, int]]) -> None:
        hosts = [urlsplit(url).netloc for url, _ in servers]
        self.url = f"redis://{','.join(hosts)}/0" + ("?shards=1" if len(hosts) > 1 else "")
        self._processes = [process for _, process in servers]
        self._clients = [Redis.from_url(url) for url, _ in servers]

    def cpu(self) -> float:
        return sum(map(cpu_of, self._processes))

    def memory_bytes(self) -> int:
        return self._sum("memory", "used_memory")

    def traffic_bytes(self) -> tuple[int, int]:
        """Return what they have read and written over all connections."""
        return self._sum("stats", "total_net_input_bytes"), self._sum(
            "stats", "total_net_output_bytes"
        )

    def _sum(self, section: str, name: str) -> int:
        return sum(int(client.info(section)[name]) for client in self._clients)


@contextmanager
def stores(count: int) -> Iterator[Store]:
    """Start so many Redis."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        yield Store([stack.enter_context(redis(folder)) for _ in range(count)])


@asynccontextmanager
async def node(url: str) -> AsyncIterator[Node]:
    """Start a node."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "node.py"), "--port", str(port), "--log", url),
        stdin=PIPE, stdout=PIPE, limit=2**20,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        if (await process.stdout.readline()).strip() != b"LISTENING":
            raise SystemExit("a node did not start")
        yield Node(process, port)
    finally:
        process.kill()
        await process.wait()


async def connect(nodes: list[Node], users: int) -> Load:
    """Connect users to the nodes in turn, in this process."""
    load = Load(Namespace(latency=True, expect=0))
    loop = asyncio.get_running_loop()
    for number in range(users):
        port = nodes[number % len(nodes)].port

        def reader(number: int = number) -> Reader:
            return Reader(load, number, "now")

        await loop.create_connection(reader, "127.0.0.1", port)
        while len(load.connects) + 64 < number:
            await asyncio.sleep(0.001)
    while len(load.connects) < users:
        await asyncio.sleep(0.01)
    await asyncio.sleep(SETTLE_SECONDS)
    return load


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Bench:
    """Nodes, their Redis and their readers, at one rate after the other."""

    def __init__(self, nodes: list[Node], load: Load, store: Store, options: Namespace) -> None:
        self._nodes = nodes
        self._load = load
        self._store = store
        self._options = options

    def _users_of(self, number: int) -> list[str]:
        """Return whose agents a node has."""
        count = len(self._nodes)
        shift = 1 if self._options.placement == "across" else 0
        users = range(self._options.users)
        return [f"user_{user}" for user in users if (user + shift) % count == number]

    async def at(self, rate: float) -> dict[str, Any]:
        """Measure one rate, which is that of all nodes together."""
        load, seconds = self._load, self._options.seconds
        load.latencies.clear()
        before, traffic, client = self._store.cpu(), self._store.traffic_bytes(), own_cpu()
        events = load.events
        share = rate / len(self._nodes)
        found = await asyncio.gather(
            *(
                each.window(self._users_of(number), share, seconds)
                for number, each in enumerate(self._nodes)
            )
        )
        store = self._store.cpu() - before
        await asyncio.sleep(SETTLE_SECONDS)
        read, written = (
            then - now for now, then in zip(traffic, self._store.traffic_bytes(), strict=True)
        )
        total = {name: sum(each[name] for each in found) for name in found[0]}
        count = max(total["acknowledged"], 1)
        latencies = sorted(load.latencies) or [float("inf")]
        return {
            "nodes": len(self._nodes),
            "asked": rate,
            "acknowledged": round(total["acknowledged"] / seconds),
            "delivered": round(total["delivered"] / seconds),
            "received": load.events - events,
            "emitted": total["emitted"],
            "node_us": round(total["cpu"] / count * 1e6, 1),
            "redis_us": round(store / count * 1e6, 1),
            "redis_reads_bytes": round(read / total["emitted"]),
            "redis_writes_bytes": round(written / total["emitted"]),
            "client_us": round((own_cpu() - client) / count * 1e6, 1),
            "p50_ms": round(latencies[len(latencies) // 2], 2),
            "p99_ms": round(latencies[len(latencies) * 99 // 100], 2),
        }


def is_past(result: dict[str, Any]) -> bool:
    """Whether a rate was too much."""
    return bool(min(result["acknowledged"], result["delivered"]) < ENOUGH * result["asked"])


async def quiet(options: Namespace) -> dict[str, Any]:
    """Say what connected users cost that get little: in Redis memory, and CPU while nothing comes."""
    async with AsyncExitStack() as stack:
        store = stack.enter_context(stores(options.shards))
        first = await stack.enter_async_context(node(store.url))
        used, empty = [store.memory_bytes()], await first.window([], 0, 0)
        await connect([first], options.users)
        used.append(store.memory_bytes())
        users = [f"user_{number}" for number in range(options.users)]
        before = store.cpu()
        idle = await first.window(users, 0, IDLE_SECONDS)
        of_store = store.cpu() - before
        for _ in range(2):
            emitted = await first.window(users, options.users / 2, 2 * EVENTS)
            used.append(store.memory_bytes())
        each = [(then - now) / options.users for now, then in itertools.pairwise(used)]
        user_seconds = options.users * IDLE_SECONDS
        return {
            "users": options.users,
            "node_us_a_user_and_second": round(idle["cpu"] / user_seconds * 1e6, 2),
            "redis_us_a_user_and_second": round(of_store / user_seconds * 1e6, 2),
            "node_bytes_of_a_connection": round(
                (idle["resident_bytes"] - empty["resident_bytes"]) / options.users
            ),
            "bytes_of_a_connected_user": round(each[0]),
            "bytes_of_the_first_events": round(each[1]),
            "bytes_of_as_many_more": round(each[2]),
            "events_each_time": round(emitted["emitted"] / options.users, 1),
        }


async def measure(count: int, options: Namespace) -> list[dict[str, Any]]:
    """Raise the rate for so many nodes until it is too much."""
    results = []
    async with AsyncExitStack() as stack:
        store = stack.enter_context(stores(options.shards))
        nodes = await asyncio.gather(
            *(stack.enter_async_context(node(store.url)) for _ in range(count))
        )
        bench = Bench(nodes, await connect(nodes, options.users), store, options)
        # What is done once, such as loading the scripts and each user's first term.
        await bench.at(RATES[0])
        for rate in options.rates:
            results.append(await bench.at(rate))
            if is_past(results[-1]):
                break
    return results


def show(results: list[dict[str, Any]]) -> None:
    table = Table(*results[0])
    for result in results:
        table.add_row(*map(str, result.values()), style="dim" if is_past(result) else None)
    Console(width=160).print(table)


async def main(options: Namespace) -> None:
    if options.quiet:
        print(json.dumps(await quiet(options)))
        return
    for count in options.nodes:
        results = await measure(count, options)
        if options.json:
            for result in results:
                print(json.dumps(result), flush=True)
        else:
            show(results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--shards", type=int, default=1, help="how many Redis")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rates", type=int, nargs="+", default=RATES)
    parser.add_argument("--placement", choices=("beside", "across"), default="across")
    parser.add_argument("--quiet", action="store_true", help="users that get little")
    parser.add_argument("--json", action="store_true")
    asyncio.run(main(parser.parse_args()))

"""How fast a log acknowledges: at saturation, and one event at a time. Prints JSON lines."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from catenary import UserWebSocketEmitter, WebSocketBridgeFactory

TEXT = "x" * 60


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def quantiles(found: list[float]) -> dict[str, float]:
    found.sort()
    last = len(found) - 1
    return {f"p{q}_ms": round(found[last * q // 100] * 1000, 3) for q in (50, 99)}


def bare_flushes(folder: Path, count: int = 200) -> dict[str, float]:
    """What the disk itself takes for a small write and its flush."""
    found = []
    with (folder / "flush").open("wb") as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - began)
    return quantiles(found)


async def saturate(emitters: list[UserWebSocketEmitter], seconds: float) -> dict[str, float]:
    """Keep 2,000 events waiting, over all users."""
    count, cpu, began = 0, cpu_seconds(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        receipts = [
            emitter.custom("bench.tick", {"pad": TEXT}) for _ in range(20) for emitter in emitters
        ]
        for receipt in receipts[-len(emitters) :]:
            await receipt
        count += len(receipts)
    took = time.perf_counter() - began
    return {
        "acknowledged_per_s": round(count / took),
        "cpu_us_per_event": round((cpu_seconds() - cpu) * 1e6 / count, 2),
    }


async def one_by_one(
    emitter: UserWebSocketEmitter, seconds: float, rate: float
) -> dict[str, float]:
    """Await each event before the next, at most ``rate`` a second."""
    found = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        await emitter.custom("bench.tick", {"pad": TEXT})
        found.append(time.perf_counter() - start)
        await asyncio.sleep(max(0, 1 / rate - found[-1]))
    return quantiles(found)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def cpu_of(process: int) -> float:
    """Return the CPU seconds that another process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def redis(folder: str, *options: str) -> Iterator[tuple[str, int]]:
    """Start a Redis of its own; gives its URL and its process."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
    with subprocess.Popen([*command, "--save", "", *options], stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            yield f"redis://127.0.0.1:{port}/0", server.pid
        finally:
            server.kill()


@contextmanager
def nats(program: str, folder: Path, jetstream: str) -> Iterator[tuple[str, int]]:
    """Start a NATS server of its own; gives its URL and its process."""
    port = free_port()
    file = folder / "server.conf"
    file.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder}", {jetstream} }}'
    )
    with subprocess.Popen([program, "-c", str(file)], stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            yield f"nats://127.0.0.1:{port}", server.pid
        finally:
            server.kill()


async def measure(
    name: str, url: str, options: argparse.Namespace, store_cpu: Callable[[], float] | None = None
) -> None:
    async with WebSocketBridgeFactory(log=url) as factory:
        emitters = [await factory.create_user_emitter(f"user_{n}") for n in range(100)]
        before = store_cpu() if store_cpu is not None else 0.0
        appended = factory.log.events_appended
        result = await saturate(emitters, options.seconds)
        if store_cpu is not None:
            count = factory.log.events_appended - appended
            result["store_cpu_us_per_event"] = round((store_cpu() - before) * 1e6 / count, 2)
        await asyncio.sleep(0.5)
        result |= await one_by_one(emitters[0], options.seconds, 1000)
        print(json.dumps({"log": name, **result}), flush=True)


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps({"bare_flush": bare_flushes(Path(folder))}))
        for name, url in (
            ("memory", "memory://?private"),
            ("sqlite process", f"sqlite:///{folder}/process.db?durability=process"),
            ("sqlite power", f"sqlite:///{folder}/power.db"),
        ):
            await measure(name, url, options)
        await redis_rows(Path(folder), options)
        await nats_rows(Path(folder), options)


async def redis_rows(folder: Path, options: argparse.Namespace) -> None:
    if shutil.which("redis-server") is None:
        print(json.dumps({"log": "redis", "skipped": "redis-server is not installed"}))
        return
    for name, more in (
        ("redis", ()),
        ("redis everysec", ("--appendonly", "yes")),
        ("redis always", ("--appendonly", "yes", "--appendfsync", "always")),
    ):
        own = folder / name.replace(" ", "-")
        own.mkdir()
        with redis(str(own), *more) as (url, process):
            await measure(name, url, options, lambda process=process: cpu_of(process))


async def nats_rows(folder: Path, options: argparse.Namespace) -> None:
    beside = Path(sys.executable).parent / "nats-server"
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        print(json.dumps({"log": "nats", "skipped": "nats-server is not installed"}))
        return
    for name, jetstream, query in (
        ("nats memory", "", "?storage=memory"),
        ("nats", "", ""),
        ("nats always", "sync_interval: always", ""),
    ):
        own = folder / name.replace(" ", "-")
        own.mkdir()
        with nats(program, own, jetstream) as (url, process):
            await measure(name, url + query, options, lambda process=process: cpu_of(process))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--folder", default=None, help="a folder on the disk to measure")
    asyncio.run(main(parser.parse_args()))

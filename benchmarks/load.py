"""
A load client: many WebSocket connections in one process, read with as little work as possible.

Prints one JSON line. Run it on another core than the server.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import statistics
import time

from catenary.auth import sign_token

SECRET = "benchmark-secret-of-at-least-32-bytes"
EVENT = re.compile(rb'"seq":(\d+)[^\x81]*?(?:"ts":(\d+))?', re.DOTALL)
STAMP = re.compile(rb'"ts":(\d+)')
MARK = b'"seq":'


class Reader(asyncio.Protocol):
    """One connection: handshake, then counting."""

    def __init__(self, load: Load, number: int, after: str) -> None:
        self.load = load
        self.number = number
        self.after = after
        self.began = time.perf_counter()
        self.is_open = False
        self.events = 0
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            (
                f"GET /ws?after={self.after} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\n"
                f"Authorization: Bearer {self.load.token(self.number)}\r\n\r\n"
            ).encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.is_open:
            if b'"connected"' not in data:
                if not data.startswith(b"HTTP/1.1 101"):
                    raise SystemExit(f"refused: {data[:200]!r}")
                return
            self.is_open = True
            self.load.opened(time.perf_counter() - self.began)
        count = data.count(MARK)
        self.events += count
        self.load.received(count, self)
        for stamp in STAMP.findall(data) if self.load.wants_latency else ():
            self.load.latencies.append((now - int(stamp)) / 1e6)

    def connection_lost(self, error: Exception | None) -> None:
        self.load.lost += 1


class Load:
    """All connections, and what they saw."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.connects: list[float] = []
        self.latencies: list[float] = []
        self.events = 0
        self.lost = 0
        self.wants_latency = options.latency
        self.complete = 0
        self.last_at = 0.0
        self.first_at = 0.0
        self._tokens: dict[int, str] = {}

    def token(self, number: int) -> str:
        if number not in self._tokens:
            self._tokens[number] = sign_token(f"user_{number}", secret=SECRET)
        return self._tokens[number]

    def opened(self, seconds: float) -> None:
        self.connects.append(seconds)

    def received(self, count: int, reader: Reader) -> None:
        if count:
            self.last_at = time.perf_counter()
            self.first_at = self.first_at or self.last_at
            self.events += count
            if reader.events - count < self.options.expect <= reader.events:
                self.complete += 1

    async def run(self) -> None:
        options = self.options
        loop = asyncio.get_running_loop()
        for number in range(options.connections):
            self.token(number)
        began = time.perf_counter()
        gate = asyncio.Semaphore(64)

        async def connect(number: int) -> None:
            async with gate:
                await loop.create_connection(
                    lambda: Reader(self, number, options.after), "127.0.0.1", options.port
                )
                async with asyncio.timeout(30):
                    while len(self.connects) + 64 < number:
                        await asyncio.sleep(0.001)

        await asyncio.gather(*(connect(number) for number in range(options.connections)))
        async with asyncio.timeout(60):
            while len(self.connects) < options.connections:
                await asyncio.sleep(0.001)
        connected = time.perf_counter() - began
        print("READY", flush=True)
        end = time.perf_counter() + options.seconds
        while time.perf_counter() < end and not self.lost:
            await asyncio.sleep(0.05)
            if options.expect and self.complete >= options.connections:
                break
        self.report(connected, began)

    def report(self, connected: float, began: float) -> None:
        found = sorted(self.latencies)
        quantile = (
            (lambda q: round(found[int(q * (len(found) - 1))], 3)) if found else lambda _: None
        )
        print(
            json.dumps(
                {
                    "connections": len(self.connects),
                    "connect_s": round(connected, 3),
                    "connect_p50_ms": round(statistics.median(self.connects) * 1000, 2),
                    "events": self.events,
                    "complete": self.complete,
                    "all_complete_s": round(self.last_at - began, 3),
                    "p50_ms": quantile(0.5),
                    "p99_ms": quantile(0.99),
                }
            ),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--after", default="now")
    parser.add_argument("--expect", type=int, default=0, help="events a connection, then stop")
    parser.add_argument("--latency", action="store_true", help="read the events' time stamps")
    asyncio.run(Load(parser.parse_args()).run())


if __name__ == "__main__":
    main()

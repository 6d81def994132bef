"""
The server under measurement: everything on (authentication, log, metrics, heartbeats).

A scenario emits from inside the server's own loop; CPU is what ``getrusage``
says of the measured window. Prints one JSON line a scenario.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from collections.abc import Awaitable, Callable

import uvicorn
from load import SECRET

from catenary import UserWebSocketContext, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.auth import JwtVerifier
from catenary.observe.monitoring import MONITORING, Monitoring
from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol

TEXT = "x" * 30
Scenario = Callable[["Bridge"], Awaitable[int]]


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


class Bridge:
    """A bridge under uvicorn, and emitters for its users."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        sampled = options.users if options.scenario == "watched" else MONITORING.connections
        self.factory = WebSocketBridgeFactory(
            log=options.log, monitoring=Monitoring(connections=sampled)
        )
        app = self.factory.asgi_app(verifier=JwtVerifier(secret=SECRET))
        config = uvicorn.Config(
            app,
            port=options.port,
            ws=WebSocketProtocol,
            http=HTTPProtocol,
            log_level="warning",
            access_log=False,
            backlog=4096,
        )
        self.server = uvicorn.Server(config)
        self.emitters: list[UserWebSocketEmitter] = []

    async def until_connected(self) -> None:
        while self.factory.manager.connection_count < self.options.users:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        for number in range(self.options.users):
            context = UserWebSocketContext(user_id=f"user_{number}", thread_id="t1", run_id="r1")
            emitter = self.factory.get_user_emitter(context)
            await emitter.agent_started("researcher")
            self.emitters.append(emitter)
        await asyncio.sleep(0.2)

    async def caught_up(self) -> None:
        """Wait until no reader is far behind, so that what is measured was delivered."""
        while any(info.lag > 500 for info in self.factory.manager.connections()):
            await asyncio.sleep(0.001)

    async def measure(self, scenario: Scenario) -> None:
        cpu, began = cpu_seconds(), time.perf_counter()
        count = await scenario(self)
        seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
        counters = self.factory.manager.counters
        print(
            json.dumps(
                {
                    "scenario": self.options.scenario,
                    "log": self.options.log.split("?")[-1] if "?" in self.options.log else "memory",
                    "events": count,
                    "events_per_s": round(count / seconds),
                    "cpu_us_per_event": round(cpu * 1e6 / max(count, 1), 2),
                    "delivered": counters.events_delivered,
                    "replayed": counters.events_replayed,
                }
            ),
            flush=True,
        )


def window(bridge: Bridge) -> Callable[[], bool]:
    end = time.perf_counter() + bridge.options.seconds
    return lambda: time.perf_counter() < end


async def single(bridge: Bridge) -> int:
    """One event a user and turn: one write each."""
    count, goes_on = 0, window(bridge)
    while goes_on():
        for emitter in bridge.emitters:
            emitter.agent_delta(TEXT)
        count += len(bridge.emitters)
        await asyncio.sleep(0)
    return count


async def burst(bridge: Bridge) -> int:
    """32 tokens a user and turn."""
    count, goes_on = 0, window(bridge)
    while goes_on():
        for emitter in bridge.emitters:
            for _ in range(32):
                emitter.agent_delta(TEXT)
        count += 32 * len(bridge.emitters)
        await asyncio.sleep(0)
        await bridge.caught_up()
    return count


async def paced(bridge: Bridge) -> int:
    """1,000 events a second over all users, each with the time of its emission."""
    count, began, goes_on = 0, time.perf_counter(), window(bridge)
    while goes_on():
        while count < (time.perf_counter() - began) * bridge.options.rate:
            emitter = bridge.emitters[count % len(bridge.emitters)]
            emitter.custom("bench.tick", {"ts": time.monotonic_ns(), "pad": "x" * 60})
            count += 1
        await asyncio.sleep(0.001)
    return count


async def connects(bridge: Bridge) -> int:
    """Count connections as they come; CPU per connect."""
    manager, users = bridge.factory.manager, bridge.options.users
    while manager.counters.connections_opened < users:
        await asyncio.sleep(0.005)
    return users


async def idle(bridge: Bridge) -> int:
    """Memory per idle connection."""
    manager, users = bridge.factory.manager, bridge.options.users
    before = resident_bytes()
    while manager.connection_count < users:
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    each = (resident_bytes() - before) / users
    print(json.dumps({"bytes_per_idle_connection": round(each)}), flush=True)
    return users


async def resume(bridge: Bridge) -> int:
    """Users that have 100 events each before anyone connects."""
    manager, users = bridge.factory.manager, bridge.options.users
    while manager.counters.events_delivered < users * 100:
        await asyncio.sleep(0.005)
    return users * 100


SCENARIOS: dict[str, Scenario] = {
    "single": single,
    "watched": single,
    "burst": burst,
    "paced": paced,
    "connects": connects,
    "idle": idle,
    "resume": resume,
}
AT_ONCE = {"connects", "idle", "resume"}


async def main(options: argparse.Namespace) -> None:
    bridge = Bridge(options)
    if options.scenario == "resume":
        for number in range(options.users):
            emitter = await bridge.factory.create_user_emitter(f"user_{number}")
            for _ in range(100):
                emitter.custom("bench.tick", {"pad": "x" * 60})
            await emitter.flush()
    serving = asyncio.create_task(bridge.server.serve())
    while not bridge.server.started:
        await asyncio.sleep(0.01)
    print("LISTENING", flush=True)
    if options.scenario not in AT_ONCE:
        await bridge.until_connected()
    await bridge.measure(SCENARIOS[options.scenario])
    await asyncio.sleep(0.5)
    bridge.server.should_exit = True
    await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", choices=SCENARIOS, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--log", default="memory://")
    uvicorn_loop = uvicorn.Config(lambda: None, loop="auto").get_loop_factory()
    with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
        runner.run(main(parser.parse_args()))

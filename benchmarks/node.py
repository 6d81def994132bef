"""
One node of several under measurement, told what to do on standard input.

Each line is a JSON object: for which users it emits, how many events a second
over all of them, and for how many seconds. The answer is one JSON line: what was
emitted, acknowledged and delivered meanwhile, the CPU that it took, and the
memory that the process has then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from typing import Any

import uvicorn
from bridge import Bridge, cpu_seconds, resident_bytes

from catenary import UserWebSocketContext, UserWebSocketEmitter
from catenary.errors import LogFull

TURN = 0.002
PAD = "x" * 60


async def emit(emitters: list[UserWebSocketEmitter], rate: float, seconds: float) -> int:
    """Emit one event after the other, each with its time; at a full log, stop."""
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        try:
            while count < passed * rate:
                data = {"ts": time.monotonic_ns(), "pad": PAD}
                emitters[count % len(emitters)].custom("bench.tick", data)
                count += 1
        except LogFull:
            pass
        await asyncio.sleep(TURN)
    return count


async def window(bridge: Bridge, wish: dict[str, Any]) -> dict[str, float]:
    """Emit as is wished, and say what came of it in that time."""
    factory = bridge.factory
    emitters = [
        factory.get_user_emitter(UserWebSocketContext(user_id=user_id, thread_id="t1"))
        for user_id in wish["users"]
    ]
    counters = factory.manager.counters
    before = factory.log.events_appended, counters.events_delivered, cpu_seconds()
    emitted = await emit(emitters, wish["rate"], wish["seconds"])
    acknowledged = factory.log.events_appended - before[0]
    delivered = counters.events_delivered - before[1]
    cpu = cpu_seconds() - before[2]
    await asyncio.gather(*(emitter.flush() for emitter in emitters))
    return {
        "emitted": emitted,
        "acknowledged": acknowledged,
        "delivered": delivered,
        "cpu": cpu,
        "resident_bytes": resident_bytes(),
    }


async def main(options: argparse.Namespace) -> None:
    # It warns of events that are late, and at the knee they are.
    logging.getLogger("catenary").setLevel(logging.ERROR)
    bridge = Bridge(options)
    serving = asyncio.create_task(bridge.server.serve())
    while not bridge.server.started:
        await asyncio.sleep(0.01)
    print("LISTENING", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await window(bridge, json.loads(line))), flush=True)
    bridge.server.should_exit = True
    await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    parser.set_defaults(scenario="nodes", users=0)
    uvicorn_loop = uvicorn.Config(lambda: None, loop="auto").get_loop_factory()
    with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
        runner.run(main(parser.parse_args()))

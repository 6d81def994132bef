"""Two servers over one Redis or NATS, under load, while one of the three fails."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from catenary.validate.checker import Fault
from tests.nats_server import NatsServer
from tests.redis_server import RedisServer

from .islands import Island
from .scene import USERS, Scene, check_runs, faults
from .slow_proxy import SlowProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
RARE = (
    [] if os.environ.get("CATENARY_FAULTS") == "all" else [pytest.mark.skip("CATENARY_FAULTS=all")]
)
"""What fails with one store is seldom what another lacks: the rest is run when it is asked for."""

STORES = ["redis", pytest.param("nats", marks=RARE)]


class OneServer(Scene):
    """Two nodes that reach one server through a network each."""

    store: RedisServer | NatsServer
    networks: list[SlowProxy]

    def __init__(
        self, directory: Path, *options: str, kind: str = "redis", query: str = ""
    ) -> None:
        store: RedisServer | NatsServer = (
            NatsServer(directory / "nats")
            if kind == "nats"
            else RedisServer(directory / "redis", *options)
        )
        networks = [SlowProxy(store.host, store.port) for _ in range(2)]
        super().__init__(directory, store, networks=networks, query=query)


@pytest.mark.parametrize("kind", STORES)
async def test_a_node_that_is_killed_loses_nothing(
    tmp_path: Path, stack: AsyncExitStack, kind: str
) -> None:
    """The other node goes on at once, and ends the dead one's runs when its lease is over."""
    scene = OneServer(tmp_path, kind=kind)
    await scene.open(stack)
    first, second = await scene.start_agents(0), await scene.start_agents(1)
    await asyncio.sleep(1)
    await scene.nodes[0].kill()
    async with asyncio.timeout(45):
        while not all(
            run_id in reader.ends
            for reader in scene.of_node(1)
            for run_id in first
            if run_id.startswith("run") and run_id in reader.starts
        ):
            await asyncio.sleep(0.1)
    await scene.nodes[0].start()
    problems = await scene.settle()
    assert list(map(str, problems)) == []
    check_runs(scene)
    ends = {run_id: ends[0] for reader in scene.readers for run_id, ends in reader.ends.items()}
    assert {ends[run_id] for run_id in first} == {"producer_lost"}
    assert {ends[run_id] for run_id in second} == {"agent_cancelled"}
    over_http = {ends[f"{user_id}-http"] for user_id in USERS}
    assert over_http == {"agent_completed"}


@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_a_store_that_stands_still_loses_nothing(
    tmp_path: Path, stack: AsyncExitStack, kind: str
) -> None:
    """Frozen for five seconds: events wait, and everything comes once, in order."""
    scene = OneServer(tmp_path, kind=kind)
    await scene.open(stack)
    await scene.start_agents(0)
    await asyncio.sleep(1)
    scene.store.freeze()
    await asyncio.sleep(5)
    scene.store.thaw()
    await asyncio.sleep(1)
    assert list(map(str, await scene.settle())) == []
    check_runs(scene)


@pytest.mark.parametrize("kind", STORES)
async def test_a_store_that_is_stopped_and_trusted_loses_nothing(
    tmp_path: Path, stack: AsyncExitStack, kind: str
) -> None:
    """Away for five seconds, on disk and with trust_restart: nothing is lost, nobody is told."""
    scene = OneServer(tmp_path, *ALWAYS, kind=kind, query="?trust_restart=1")
    await scene.open(stack)
    await scene.start_agents(0)
    await asyncio.sleep(1)
    scene.store.kill()
    await asyncio.sleep(5)
    scene.store.start()
    await asyncio.sleep(1)
    assert list(map(str, await scene.settle())) == []
    check_runs(scene)


@pytest.mark.parametrize("kind", STORES)
async def test_a_store_that_restarts_is_told(
    tmp_path: Path, stack: AsyncExitStack, kind: str
) -> None:
    """On disk nothing is lost; that it might have been, every reader is told once."""
    scene = OneServer(tmp_path, *ALWAYS, kind=kind)
    await scene.open(stack)
    await asyncio.sleep(1)
    scene.store.kill()
    await asyncio.sleep(1)
    scene.store.start()
    await asyncio.sleep(1)
    assert faults(await scene.settle()) == {Fault.TOLD_LOSS}
    for reader in scene.readers:
        (gap,) = reader.losses
        assert gap.reason == "epoch"
        assert gap.resumes_at.seq == gap.after.seq + 1
    check_runs(scene)


async def test_a_redis_that_comes_back_empty_is_told(tmp_path: Path, stack: AsyncExitStack) -> None:
    """What it had acknowledged is gone: every reader is told by a gap, and none sees a mistake."""
    scene = OneServer(tmp_path)
    await scene.open(stack)
    await scene.start_agents(0)
    await asyncio.sleep(1)
    scene.store.kill()
    await asyncio.sleep(1)
    scene.store.start()
    await asyncio.sleep(2)
    for producer in scene.producers:
        producer.is_stopping = True
    # The runs that Redis forgot are nobody's: their producers are refused for good.
    done, _ = await asyncio.wait(scene.producing, timeout=10)
    for task in done:
        assert isinstance(task.exception(), AssertionError | None)
    scene.producing = []
    found = faults(await scene.settle())
    assert found <= {Fault.TOLD_LOSS, Fault.LOST, Fault.REPEATED}
    assert all(gap.reason == "epoch" for reader in scene.readers for gap in reader.losses)
    assert {len(reader.losses) for reader in scene.readers} <= {1, 2}


@pytest.mark.parametrize(
    ("kind", "delay"), [("redis", 0.05), ("redis", 0.25), pytest.param("nats", 0.25, marks=RARE)]
)
async def test_a_slow_store_loses_nothing(
    tmp_path: Path, stack: AsyncExitStack, kind: str, delay: float
) -> None:
    """Each piece takes long both ways: it is slower, and nothing else."""
    scene = OneServer(tmp_path, kind=kind)
    await scene.open(stack)
    for network in scene.networks:
        network.delay = delay
    await scene.start_agents(0)
    await asyncio.sleep(5)
    for network in scene.networks:
        network.delay = 0
    assert list(map(str, await scene.settle())) == []
    check_runs(scene)


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_partition_of_one_way_loses_nothing(
    tmp_path: Path, stack: AsyncExitStack, way: str
) -> None:
    """What one node sends, or what it is sent, does not arrive for a while."""
    scene = OneServer(tmp_path)
    await scene.open(stack)
    await scene.start_agents(0)
    await asyncio.sleep(1)
    network = scene.networks[0]
    if way == "up":
        network.is_up = False
    else:
        network.is_down = False
    await asyncio.sleep(8)
    network.is_up = network.is_down = True
    await asyncio.sleep(2)
    assert list(map(str, await scene.settle())) == []
    check_runs(scene)


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_packets_that_are_dropped_one_way_lose_nothing(
    tmp_path: Path, stack: AsyncExitStack, direction: str
) -> None:
    """Redis gets nothing, or what it sends does not arrive; neither end sees a close."""
    island = stack.enter_context(Island())
    scene = Scene(tmp_path, RedisServer(tmp_path / "redis", host=island.host, inside=island.inside))
    await scene.open(stack)
    await scene.start_agents(0)
    await asyncio.sleep(1)
    island.cut(direction)
    await asyncio.sleep(8)
    island.mend()
    await asyncio.sleep(3)
    assert list(map(str, await scene.settle())) == []
    check_runs(scene)

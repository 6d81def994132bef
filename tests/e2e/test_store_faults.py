"""Two servers over one Redis or NATS, under load, while one of the three fails."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from catenary.validate.checker import Fault, OrderingChecker
from tests.nats_server import NatsServer
from tests.redis_server import RedisServer

from .bridge_app import ACKNOWLEDGED
from .islands import Island
from .load import Producer, Reader, caught_up, heads, read_journal
from .server import API_KEY, KEYS, Server
from .slow_proxy import SlowProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

SEED = 20_261_125
USERS = [f"user_{number}" for number in range(4)]
CONVERGENCE = 40.0
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
RARE = (
    [] if os.environ.get("CATENARY_FAULTS") == "all" else [pytest.mark.skip("CATENARY_FAULTS=all")]
)
"""What fails with one store is seldom what another lacks: the rest is run when it is asked for."""

STORES = ["redis", pytest.param("nats", marks=RARE)]


class Balanced(httpx.AsyncBaseTransport):
    """Sends each request to another node, as a load balancer does; one that is away is left out."""

    def __init__(self, nodes: list[Server], seed: str) -> None:
        self._nodes = nodes
        self._random = random.Random(seed)
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        node = self._random.choice(self._nodes)
        request.url = request.url.copy_with(port=node.port)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class Scene:
    """
    Two nodes and their store; a reader for each user on each node.

    Runs over HTTP are published to either node in turn. Each node reaches
    the store through a network of its own.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        kind: str = "redis",
        query: str = "",
        island: Island | None = None,
    ) -> None:
        self.directory = directory
        place: dict[str, Any] = (
            {"host": island.host, "inside": island.inside} if island is not None else {}
        )
        self.store: RedisServer | NatsServer
        if kind == "nats":
            self.store = NatsServer(directory / "nats")
        else:
            self.store = RedisServer(directory / "redis", *options, **place)
        self.networks = [SlowProxy(self.store.host, self.store.port) for _ in range(2)]
        self.is_direct = island is not None
        self.query = query
        self.checker = OrderingChecker()
        self.nodes: list[Server] = []
        self.readers: list[Reader] = []
        self.producers: list[Producer] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.producing: list[asyncio.Task[None]] = []
        self.journals: list[Path] = []
        self.started: list[str] = []

    async def open(self, stack: AsyncExitStack) -> None:
        stack.enter_context(self.store)
        for number, network in enumerate(self.networks):
            await stack.enter_async_context(network)
            directory = self.directory / f"node{number}"
            directory.mkdir()
            journal = directory / "acknowledged"
            journal.touch()
            self.journals.append(journal)
            url = self.store.url
            if not self.is_direct:
                url = url.replace(f":{self.store.port}", f":{network.port}")
            node = Server(
                directory,
                *("serve", "--log", f"{url}{self.query}"),
                *("--app", "tests.e2e.bridge_app:make_bridge", "--log-level", "warning"),
                **{**KEYS, ACKNOWLEDGED: str(journal)},
            )
            await stack.enter_async_context(node)
            self.nodes.append(node)
        for user_id in USERS:
            for number, node in enumerate(self.nodes):
                name = f"{user_id} on node {number}"
                reader = Reader(node, user_id, name, self.checker, f"{SEED} {name}")
                self.readers.append(reader)
                await stack.enter_async_context(reader.client)
                self.tasks.append(asyncio.create_task(reader.run()))
            run_id = f"{user_id}-http"
            producer = Producer(self, user_id, run_id, self.checker, f"{SEED} {run_id}")
            self.producers.append(producer)
            self.producing.append(asyncio.create_task(producer.run()))

    def api(self) -> httpx.AsyncClient:
        """Return a client whose requests go to either node."""
        return httpx.AsyncClient(
            base_url="http://127.0.0.1:1",
            headers={"authorization": f"Bearer {API_KEY}"},
            transport=Balanced(self.nodes, f"{SEED} balancer"),
            timeout=20,
        )

    def of_node(self, number: int) -> list[Reader]:
        return self.readers[number::2]

    async def start_agents(self, node: int) -> list[str]:
        """Let a node start an agent for each user; return their runs."""
        asked = [reader.start_work() for reader in self.of_node(node)]
        found = [run_id for run_id in await asyncio.gather(*asked) if run_id is not None]
        self.started += found
        return found

    async def settle(self) -> list[Any]:
        """Stop the producers, wait for the readers, and return what does not hold."""
        for producer in self.producers:
            producer.is_stopping = True
        async with asyncio.timeout(60):
            await asyncio.gather(*self.producing)
        # What agents still say would move the heads. Any node may be asked for any run.
        async with self.api() as http:
            for run_id in self.started:
                answer = await http.post(f"/api/runs/{run_id}/cancel", json={})
                assert answer.status_code in {200, 404}, answer.text
        ends = await self._heads_that_stay()
        await caught_up(self.readers, ends, CONVERGENCE)
        for journal in self.journals:
            read_journal(journal, self.checker)
        for task in self.tasks:
            task.cancel()
        over_http = sum(producer.acknowledged for producer in self.producers)
        print(f"seed {SEED}: {self.checker.events_received} received, {over_http} over HTTP")
        return self.checker.problems(ends)

    async def _heads_that_stay(self) -> dict[str, Any]:
        ends = await heads(self, USERS)
        while True:
            await asyncio.sleep(0.5)
            former, ends = ends, await heads(self, USERS)
            if former == ends:
                return ends


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


def faults(problems: list[Any]) -> set[Fault]:
    return {problem.fault for problem in problems}


def check_runs(scene: Scene) -> None:
    """Every reader saw one start and one end of every run."""
    for reader in scene.readers:
        assert set(reader.starts.values()) == {1}
        assert {len(ends) for ends in reader.ends.values()} == {1}
        assert reader.ends.keys() == reader.starts.keys()


@pytest.mark.parametrize("kind", STORES)
async def test_a_node_that_is_killed_loses_nothing(
    tmp_path: Path, stack: AsyncExitStack, kind: str
) -> None:
    """The other node goes on at once, and ends the dead one's runs when its lease is over."""
    scene = Scene(tmp_path, kind=kind)
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
    scene = Scene(tmp_path, kind=kind)
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
    scene = Scene(tmp_path, *ALWAYS, kind=kind, query="?trust_restart=1")
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
    scene = Scene(tmp_path, *ALWAYS, kind=kind)
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
    scene = Scene(tmp_path)
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
    scene = Scene(tmp_path, kind=kind)
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
    scene = Scene(tmp_path)
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
    scene = Scene(tmp_path, island=island)
    await scene.open(stack)
    await scene.start_agents(0)
    await asyncio.sleep(1)
    island.cut(direction)
    await asyncio.sleep(8)
    island.mend()
    await asyncio.sleep(3)
    assert list(map(str, await scene.settle())) == []
    check_runs(scene)

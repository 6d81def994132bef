"""Two nodes behind a real HAProxy with the file of ``deploy/``, and 200 users, while nodes go."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from catenary.client import State
from catenary.position import Position
from catenary.validate.checker import OrderingChecker
from tests.redis_server import RedisServer

from .balancers import HAProxy
from .bridge_app import ACKNOWLEDGED
from .load import Producer, Reader, caught_up, heads, read_journal
from .server import KEYS, Server
from .support import say

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED = 20_261_126
USERS = [f"user_{number}" for number in range(200)]
AGENTS = 20
"""So many of the users have an agent in one of the nodes; all have a run over HTTP."""

AGENT_PACE = 0.05
HTTP_PACE = 2.0
NODES = 2
PATIENCE = 120.0
LOOK = 0.02
AWAY_LIMIT = 10.0
"""Nobody is away for longer, on a machine that others use too."""


class Absences:
    """How long clients are not live, as seen every 20 ms."""

    def __init__(self, readers: Iterable[Reader]) -> None:
        self._readers = list(readers)
        self._lost: dict[str, float] = {}
        self.seconds: list[float] = []

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for reader in self._readers:
                if reader.client.state is not State.LIVE:
                    self._lost.setdefault(reader.name, now)
                elif reader.name in self._lost:
                    self.seconds.append(now - self._lost.pop(reader.name))
            await asyncio.sleep(LOOK)

    @property
    def is_over(self) -> bool:
        return not self._lost

    def tell(self, what: str) -> None:
        """Say what was measured, and check that it is bounded."""
        assert self.is_over
        found = sorted(self.seconds)
        quantile = statistics.quantiles(found, n=100)
        say(
            f"seed {SEED}: {what}: {len(found)} times a client was away, P50 {quantile[49]:.2f} s, "
            f"P99 {quantile[98]:.2f} s, at most {found[-1]:.2f} s"
        )
        assert found[-1] < AWAY_LIMIT


class Scene:
    """Redis, two nodes, HAProxy; a client of each user, agents in the nodes, runs over HTTP."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.redis = RedisServer(directory / "redis")
        self.checker = OrderingChecker()
        self.nodes: list[Server] = []
        self.journals: list[Path] = []
        self.readers: list[Reader] = []
        self.producers: list[Producer] = []
        self.started: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._producing: list[asyncio.Task[None]] = []

    async def open(self, stack: AsyncExitStack) -> None:
        stack.enter_context(self.redis)
        await asyncio.gather(*(self._start_node(number, stack) for number in range(NODES)))
        ports = [node.port for node in self.nodes]
        self.balancer = await stack.enter_async_context(HAProxy(ports))
        for number in range(NODES):
            await self.balancer.until("UP", node=number)
        for user_id in USERS:
            reader = Reader(
                self.balancer, user_id, user_id, self.checker, f"{SEED} {user_id}", cap=10.0
            )
            self.readers.append(reader)
            await stack.enter_async_context(reader.client)
            self._tasks.append(asyncio.create_task(reader.run()))
        await self.until(lambda: all(is_live(reader) for reader in self.readers))
        for user_id in USERS:
            run_id = f"{user_id}-http"
            producer = Producer(
                self.balancer, user_id, run_id, self.checker, f"{SEED} {run_id}", pace=HTTP_PACE
            )
            self.producers.append(producer)
            self._producing.append(asyncio.create_task(producer.run()))
        asked = (reader.start_work(pace=AGENT_PACE) for reader in self.readers[:AGENTS])
        self.started = [run_id for run_id in await asyncio.gather(*asked) if run_id is not None]
        assert len(self.started) == AGENTS

    async def _start_node(self, number: int, stack: AsyncExitStack) -> None:
        directory = self._directory / f"node{number}"
        directory.mkdir()
        journal = directory / "acknowledged"
        journal.touch()
        self.journals.append(journal)
        node = Server(
            directory,
            *("serve", "--log", self.redis.url, "--run-drain-timeout", "0.5"),
            *("--app", "tests.e2e.bridge_app:make_bridge"),
            **{**KEYS, ACKNOWLEDGED: str(journal)},
        )
        self.nodes.append(node)
        await stack.enter_async_context(node)

    def agents_of(self, number: int) -> set[str]:
        """Return the runs whose agents a node has, by what it was acknowledged."""
        lines = self.journals[number].read_text().split("\n")
        markers = {line.split()[2] for line in lines if len(line.split()) == 3}
        return {marker.rpartition("-")[0] for marker in markers}

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Absences]:
        """Watch how long clients are away, until all are back."""
        absences = Absences(self.readers)
        task = asyncio.create_task(absences.watch())
        yield absences
        await self.until(lambda: all(is_live(reader) for reader in self.readers))
        await self.until(lambda: absences.is_over)
        task.cancel()

    async def until(self, condition: Callable[[], object], patience: float = PATIENCE) -> None:
        async with asyncio.timeout(patience):
            while not condition():
                await self._check_tasks()
                await asyncio.sleep(0.05)

    async def _check_tasks(self) -> None:
        """A reader or a producer that failed is the failure to be shown."""
        for task in (*self._tasks, *self._producing):
            if task.done():
                await task

    async def settle(self) -> None:
        """Stop the producers and the agents, wait for the readers, and ask the checker."""
        for producer in self.producers:
            producer.is_stopping = True
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._producing)
        async with self.balancer.api() as http:
            for run_id in self.started:
                answer = await http.post(f"/api/runs/{run_id}/cancel", json={})
                assert answer.status_code in {200, 404}, answer.text
        await self.until(lambda: all(run_id in self.ends() for run_id in self.started))
        places = await heads(self.balancer, USERS)
        await caught_up(self.readers, places, PATIENCE)
        in_process = sum(read_journal(journal, self.checker) for journal in self.journals)
        over_http = sum(producer.acknowledged for producer in self.producers)
        say(
            f"seed {SEED}: {self.checker.events_received} received, {over_http} acknowledged over "
            f"HTTP, {in_process} in process"
        )
        for task in self._tasks:
            task.cancel()
        self._check(places)

    def ends(self) -> dict[str, list[str]]:
        """Return what each run ended with, as its reader saw it."""
        return {run_id: ends for reader in self.readers for run_id, ends in reader.ends.items()}

    def _check(self, places: dict[str, Position]) -> None:
        assert list(map(str, self.checker.problems(places))) == []
        for reader in self.readers:
            assert reader.losses == []
            assert set(reader.starts.values()) == {1}
            assert {len(ends) for ends in reader.ends.values()} == {1}
            assert reader.ends.keys() == reader.starts.keys()
        ends = self.ends()
        assert {ends[f"{user_id}-http"][0] for user_id in USERS} == {"agent_completed"}
        for node in self.nodes:
            errors = node.errors()
            assert "closed with 1011" not in errors
            assert "Traceback" not in errors


def is_live(reader: Reader) -> bool:
    return reader.client.state is State.LIVE


Harm = Callable[[Scene], Awaitable[Any]]


async def test_a_node_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """Its clients are back at once, on the other node, which ends its runs with producer_lost."""
    async with AsyncExitStack() as stack:
        scene = Scene(tmp_path)
        await scene.open(stack)
        await scene.until(lambda: len(scene.agents_of(0)) + len(scene.agents_of(1)) == AGENTS)
        async with scene.watched() as absences:
            await asyncio.sleep(2)
            await scene.nodes[0].kill()
            await scene.until(lambda: not absences.is_over)
        lost = scene.agents_of(0)
        assert 0 < len(lost) < AGENTS
        await scene.until(lambda: all(run_id in scene.ends() for run_id in lost))
        await scene.settle()
    absences.tell("a node is killed")
    ends = scene.ends()
    assert {ends[run_id][0] for run_id in lost} == {"producer_lost"}
    assert {ends[run_id][0] for run_id in scene.started if run_id not in lost} == {
        "agent_cancelled"
    }


async def test_a_rolling_restart_loses_nothing(tmp_path: Path) -> None:
    """Each node is drained, started and ready before the next; everybody is told to come back."""
    async with AsyncExitStack() as stack:
        scene = Scene(tmp_path)
        await scene.open(stack)
        async with scene.watched() as absences:
            for number, node in enumerate(scene.nodes):
                await asyncio.sleep(2)
                assert await node.stop() == 0
                await node.start()
                await scene.balancer.until("UP", node=number)
        await scene.settle()
    absences.tell("rolling restart")
    # The first agents were drained with their node; none of them is lost.
    assert {scene.ends()[run_id][0] for run_id in scene.started} == {"shutdown"}
    drained = [node.errors().count("closed with 1012") for node in scene.nodes]
    say(f"told to come back: {drained}")
    assert sum(drained) >= len(USERS)

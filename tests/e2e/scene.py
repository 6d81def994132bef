"""Two servers over one store, with producers, agents and readers, and one checker of all that they see."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import httpx

from catenary.validate.checker import Fault, OrderingChecker

from .bridge_app import ACKNOWLEDGED
from .load import Producer, Reader, caught_up, heads, read_journal
from .server import API_KEY, KEYS, Server
from .slow_proxy import SlowProxy

SEED = 20_261_125
USERS = [f"user_{number}" for number in range(4)]
CONVERGENCE = 40.0


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


def _journal_in(directory: Path) -> Path:
    """Make a node's directory, and in it where its agents note what was acknowledged."""
    directory.mkdir()
    journal = directory / "acknowledged"
    journal.touch()
    return journal


async def _cancel(http: httpx.AsyncClient, run_id: str) -> None:
    """Cancel a run; a store that has just changed may be away for a moment."""
    async with asyncio.timeout(20):
        while (answer := await http.post(f"/api/runs/{run_id}/cancel", json={})).status_code == 503:
            await asyncio.sleep(0.1)
    assert answer.status_code in {200, 404}, answer.text


class Store(AbstractContextManager[Any], Protocol):
    """What both nodes keep their log in."""

    @property
    def url(self) -> str: ...


class Scene:
    """
    Two nodes and their store; a reader for each user on each node.

    Runs over HTTP are published to either node in turn. With ``networks`` each
    node reaches the store, which then is one server, through its own.
    """

    def __init__(
        self, directory: Path, store: Store, *, networks: Sequence[SlowProxy] = (), query: str = ""
    ) -> None:
        self.directory = directory
        self.store = store
        self.networks = networks
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
        urls = [self.store.url] * 2
        for number, network in enumerate(self.networks):
            await stack.enter_async_context(network)
            urls[number] = self.store.url.replace(f":{network.target_port}", f":{network.port}")
        for number, url in enumerate(urls):
            await self._open_node(stack, self.directory / f"node{number}", f"{url}{self.query}")
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

    async def _open_node(self, stack: AsyncExitStack, directory: Path, url: str) -> None:
        journal = _journal_in(directory)
        self.journals.append(journal)
        node = Server(
            directory,
            *("serve", "--log", url),
            *("--app", "tests.e2e.bridge_app:make_bridge", "--log-level", "warning"),
            **{**KEYS, ACKNOWLEDGED: str(journal)},
        )
        await stack.enter_async_context(node)
        self.nodes.append(node)

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
                await _cancel(http, run_id)
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


def faults(problems: list[Any]) -> set[Fault]:
    return {problem.fault for problem in problems}


def check_runs(scene: Scene) -> None:
    """Every reader saw one start and one end of every run."""
    for reader in scene.readers:
        assert set(reader.starts.values()) == {1}
        assert {len(ends) for ends in reader.ends.values()} == {1}
        assert reader.ends.keys() == reader.starts.keys()

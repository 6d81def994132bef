"""The server is killed in mid-stream, ten times; and stopped in order, under load."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from websockets.typing import Subprotocol

from catenary.events import EventType
from catenary.validate.checker import OrderingChecker

from .bridge_app import ACKNOWLEDGED
from .load import Producer, Reader, caught_up, heads, read_journal
from .server import KEYS, Server, token_of

pytestmark = pytest.mark.slow

SEED = 20_260_401
KILLS = 10
USERS = [f"user_{number}" for number in range(5)]
READERS_A_USER = 2
RUNS_OVER_HTTP = 2
RUNS_IN_PROCESS = 2
CONVERGENCE = 30.0


class Scene:
    """A server over one file, five users with four runs each, and two readers for each user."""

    def __init__(self, directory: Path, *, drain: float = 25.0) -> None:
        self.journal = directory / "acknowledged"
        self.journal.touch()
        self.checker = OrderingChecker()
        self.server = Server(
            directory,
            *("serve", "--log", f"sqlite:///{directory / 'events.db'}"),
            *("--app", "tests.e2e.bridge_app:make_bridge"),
            *("--run-drain-timeout", str(drain)),
            **{**KEYS, ACKNOWLEDGED: str(self.journal)},
        )
        self.readers: list[Reader] = []
        self.producers: list[Producer] = []
        self.started: list[str] = []
        self.reading: list[asyncio.Task[None]] = []
        self.producing: list[asyncio.Task[None]] = []

    async def open(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self.server)
        for user_id in USERS:
            for number in range(READERS_A_USER):
                name = f"{user_id} reader {number}"
                reader = Reader(self.server, user_id, name, self.checker, f"{SEED} {name}")
                self.readers.append(reader)
                await stack.enter_async_context(reader.client)
                self.reading.append(asyncio.create_task(reader.run()))
            for number in range(RUNS_OVER_HTTP):
                run_id = f"{user_id}-http-{number}"
                producer = Producer(self.server, user_id, run_id, self.checker, f"{SEED} {run_id}")
                self.producers.append(producer)
                self.producing.append(asyncio.create_task(producer.run()))

    async def start_agents(self) -> list[str]:
        """Let the server start its agents, two for each user; return their runs."""
        askers = self.readers[::READERS_A_USER]
        asked = [reader.start_work() for reader in askers for _ in range(RUNS_IN_PROCESS)]
        run_ids = [run_id for run_id in await asyncio.gather(*asked) if run_id is not None]
        self.started += run_ids
        return run_ids

    async def settle(self) -> None:
        """Stop the producers, wait for the readers, and ask the checker."""
        for producer in self.producers:
            producer.is_stopping = True
        await asyncio.gather(*self.producing)
        ends = await heads(self.server, USERS)
        await caught_up(self.readers, ends, CONVERGENCE)
        in_process = read_journal(self.journal, self.checker)
        for task in self.reading:
            task.cancel()
        self._tell(in_process)
        assert [str(problem) for problem in self.checker.problems(ends)] == []

    def _tell(self, in_process: int) -> None:
        over_http = sum(producer.acknowledged for producer in self.producers)
        given_up = sum(producer.given_up for producer in self.producers)
        print(
            f"seed {SEED}: {self.server.kills} kills, {self.checker.events_received} received, "
            f"{over_http} acknowledged over HTTP, {in_process} in process, "
            f"{given_up} batches of unknown outcome, {len(self.started)} agents"
        )

    def check_readers(self) -> None:
        """Nothing came twice on the wire, nothing was told lost, and all began at the beginning."""
        for reader in self.readers:
            assert reader.losses == []
            assert reader.first_seq == 1
            assert reader.client.stats.duplicates == 0
            assert set(reader.starts.values()) == {1}
            assert {len(ends) for ends in reader.ends.values()} == {1}
            assert reader.ends.keys() == reader.starts.keys()


async def last_words(server: Server, user_id: str) -> tuple[dict[str, Any], int | None]:
    """Read as a plain WebSocket client; return the last message and the code of the close."""
    subprotocols = [Subprotocol("catenary.v1"), Subprotocol(f"catenary.bearer.{token_of(user_id)}")]
    last: dict[str, Any] = {}
    async with connect(server.websocket, subprotocols=subprotocols, proxy=None) as websocket:
        with suppress(ConnectionClosedError):
            async for message in websocket:
                last = json.loads(message)
    return last, websocket.close_code


@pytest.mark.timeout(180)
async def test_a_server_that_is_killed_ten_times_loses_nothing(tmp_path: Path) -> None:
    """
    Acknowledged events come exactly once, in order, dense; others at most once.

    The runs of a process that was killed end with producer_lost; those over
    HTTP go on in the next one.
    """
    chance = random.Random(SEED)
    scene = Scene(tmp_path)
    async with AsyncExitStack() as stack:
        await scene.open(stack)
        for _ in range(KILLS):
            agents = await scene.start_agents()
            assert agents
            await asyncio.sleep(chance.uniform(0.2, 0.8))
            await scene.server.kill()
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            await scene.server.start()
        await scene.settle()
    scene.check_readers()
    assert scene.server.kills == KILLS
    ends = {run_id: ends[0] for reader in scene.readers for run_id, ends in reader.ends.items()}
    assert {ends[run_id] for run_id in scene.started} == {"producer_lost"}
    over_http = [run_id for run_id in ends if "-http-" in run_id]
    assert {ends[run_id] for run_id in over_http} == {EventType.AGENT_COMPLETED}


@pytest.mark.timeout(90)
async def test_a_server_that_is_stopped_under_load_loses_nothing(tmp_path: Path) -> None:
    """
    SIGTERM: clients are told and come back to the next process, and everything is there.

    Runs that outlast the drain end with shutdown, and the exit is a success.
    """
    scene = Scene(tmp_path, drain=0.5)
    async with AsyncExitStack() as stack:
        await scene.open(stack)
        agents = await scene.start_agents()
        assert len(agents) == len(USERS) * RUNS_IN_PROCESS
        witness = asyncio.create_task(last_words(scene.server, USERS[0]))
        await asyncio.sleep(0.5)
        assert await scene.server.stop() == 0
        closing, code = await witness
        assert closing["type"] == "closing"
        assert closing["reason"] == "draining"
        assert 0 < closing["reconnect_after"] <= 2
        assert code == 1012
        await scene.server.start()
        await scene.settle()
    scene.check_readers()
    ends = {run_id: ends[0] for reader in scene.readers for run_id, ends in reader.ends.items()}
    assert {ends[run_id] for run_id in agents} == {"shutdown"}
    errors = scene.server.errors()
    assert "draining: 11 connections, 10 runs" in errors
    assert errors.count("closed with 1012") == len(scene.readers) + 1

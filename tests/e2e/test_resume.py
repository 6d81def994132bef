"""Clients that come back through a network that cuts them at random."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from catenary.client import Backoff, Client
from catenary.events import RUN_ENDS
from catenary.position import Position
from catenary.validate.chaos import CALM, ChaosProxy, Faults, Incident
from catenary.validate.checker import OrderingChecker
from tests.e2e.support import Bridge, Reader, bridge, log_url, say, token_of

SEED = 7
USERS = 4
CLIENTS_A_USER = 5
RUNS = 3
DELTAS = 150
CONVERGENCE = 40.0
CUTS = Incident.CUT, Incident.RESET


class Agents:
    """Runs of several users, whose every receipt is told to the checker."""

    def __init__(self, running: Bridge, checker: OrderingChecker) -> None:
        self._running = running
        self._checker = checker

    async def work(self, user: str, number: int) -> None:
        """One run: thinking, a tool, and text in pieces, at a human pace."""
        rng = random.Random(f"{SEED} {user} {number}")
        emitter = self._running.emitter(user, thread_id=f"t{number}")
        async with emitter.run(run_id=f"r{number}", agent_name="writer") as run:
            self._note(user, await run.thinking("about bridges"))
            async with run.tool("search", {"q": "bridges"}) as tool:
                tool.set_result(["a bridge"])
            for n in range(DELTAS):
                word = f"r{number}-{n}"
                self._note(user, await run.delta(f"{word} " + " " * rng.randrange(100)), word)
                self._note(user, await run.progress(percentage=n / DELTAS))
                await asyncio.sleep(rng.uniform(0, 0.02))

    def _note(self, user: str, position: Position, word: str | None = None) -> None:
        self._checker.acknowledged(user, position, word)


async def read(
    client: Client, name: str, user: str, checker: OrderingChecker, slowness: float
) -> None:
    """Read through the ends of all runs; ``slowness`` in seconds an event."""
    checker.begin(name, user)
    ends = 0
    async with client:
        async for event in client:
            checker.received(name, event, event.user_id or "")
            ends += event.type in RUN_ENDS
            if ends == RUNS:
                return
            await asyncio.sleep(slowness)


def client_of(user: str, name: str, port: int) -> Client:
    """A client that soon comes back, with a fresh token."""
    return Client(
        f"ws://127.0.0.1:{port}/ws",
        token=lambda: token_of(user),
        backoff=Backoff(first=0.02, base=0.02, cap=0.1, random=random.Random(f"{SEED} {name}")),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis", "nats"])
async def test_everything_arrives_once_however_it_is_cut(kind: str, tmp_path: Path) -> None:
    """20 clients, each cut at random bytes all the time, end with every event once, in order."""
    say(f"seed {SEED}")
    checker = OrderingChecker()
    users = [f"user_{n}" for n in range(USERS)]
    async with (
        bridge(log_url(kind, tmp_path)) as running,
        ChaosProxy(running.server.port, faults=Faults(cut=1.0), seed=SEED) as network,
    ):
        clients = {
            name: client_of(user, name, network.port)
            for user in users
            for name in (f"{user} client {n}" for n in range(CLIENTS_A_USER))
        }
        agents = Agents(running, checker)
        async with asyncio.timeout(CONVERGENCE), asyncio.TaskGroup() as readers:
            for name, client in clients.items():
                slowness = 0.002 * name.endswith("0")
                user = name.partition(" ")[0]
                readers.create_task(read(client, name, user, checker, slowness))
            async with asyncio.TaskGroup() as runs:
                for user in users:
                    for n in range(RUNS):
                        runs.create_task(agents.work(user, n))
            network.apply(CALM)
        heads = {user: await running.factory.log.head(user) for user in users}
    reconnects = sum(client.stats.connections for client in clients.values()) - len(clients)
    attempts = sum(client.stats.attempts for client in clients.values())
    cuts = [entry.detail for entry in network.journal.entries if entry.what in CUTS]
    say(
        f"{kind}: {sum(head.seq for head in heads.values())} events, {len(cuts)} cuts, "
        f"{attempts} attempts, {reconnects} resumed connections, {checker.events_received} messages"
    )
    assert checker.problems(heads) == []
    assert reconnects > 5 * len(clients)
    assert set(cuts) == {"up", "down"}
    assert attempts > 1.1 * (reconnects + len(clients)), "some were cut in the handshake"


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis", "nats"])
async def test_a_place_inside_what_was_merged(kind: str, tmp_path: Path) -> None:
    """Who had some pieces of a text before they were joined gets the others, and only these."""
    words = [f"{n} \u00e9\U0001f682\n" for n in range(40)]
    async with bridge(log_url(kind, tmp_path)) as running:
        async with running.emitter("user_123").run(agent_name="writer") as run:
            first = (await run.thinking("about bridges")).seq + 1
            places = [await run.delta(word) for word in words]
        assert [place.seq for place in places] == list(range(first, first + len(words)))
        for _ in range(3):
            await running.factory.log.sweep()
        page = await running.factory.log.read("user_123", Position(places[0].epoch, 0))
        assert any(record.from_seq for record in page.records), "they were joined in the log"
        for number, place in enumerate(places):
            reader = await Reader.open(running, "user_123", after=str(place))
            await reader.until(lambda reader=reader: reader.live)  # type: ignore[misc]
            assert (reader.faults, reader.gaps) == ([], [])
            deltas = reader.of_type("agent_delta")
            text = "".join(event["data"]["delta"] for event in deltas)
            assert text == "".join(words[number + 1 :])
            reader.close()

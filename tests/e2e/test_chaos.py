"""Clients of a real bridge, through the chaos proxy."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from catenary import UserWebSocketContext, WebSocketBridgeFactory
from catenary.auth import JwtVerifier
from catenary.client import Backoff, Client
from catenary.client import Limits as ClientLimits
from catenary.limits import Limits
from catenary.validate.chaos import (
    LEVELS,
    PROFILES,
    Action,
    ChaosProxy,
    Faults,
    Incident,
    rapid_cuts,
)
from catenary.validate.checker import OrderingChecker
from tests.e2e.support import SECRET, say, token_of
from tests.serving.certificates import write_certificate
from tests.serving.sockets import serving, until

SEED = 7
USER = "user_123"


class Running(NamedTuple):
    """A bridge, and from where its clients came."""

    factory: WebSocketBridgeFactory
    port: int
    addresses: list[str]


@asynccontextmanager
async def bridge(limits: Limits | None = None, **tls: str) -> AsyncIterator[Running]:
    """Serve a bridge, over TLS where a certificate is given."""
    factory = WebSocketBridgeFactory("memory://?private", run_drain_timeout=0.5, limits=limits)
    app = factory.asgi_app(verifier=JwtVerifier(secret=SECRET))
    addresses: list[str] = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        addresses.append(scope["client"][0])
        await app(scope, receive, send)

    async with factory, serving(noting, **tls) as server:
        yield Running(factory, server.port, addresses)


class Campaign:
    """An agent that emits, clients that read through a network, and the checker of both."""

    def __init__(
        self,
        running: Running,
        network: ChaosProxy,
        *,
        certfile: str | None = None,
        checker: OrderingChecker | None = None,
        name: str = "client",
    ) -> None:
        self.checker = checker or OrderingChecker()
        self._name = name
        self.clients: list[Client] = []
        self.emitted = 0
        self._running = running
        scheme = "ws" if certfile is None else "wss"
        self._url = network.url_for(f"{scheme}://127.0.0.1:{running.port}/ws")
        self._ssl = certfile and ssl.create_default_context(cafile=certfile)

    def client(self) -> Client:
        """A client that soon comes back."""
        chance = random.Random(f"{SEED} {self._name} {len(self.clients)}")
        backoff = Backoff(first=0.02, base=0.02, cap=0.2, random=chance)
        made = Client(
            self._url,
            token=lambda: token_of(USER),
            ssl=self._ssl or None,
            # A record whose length was altered is waited for in vain.
            limits=ClientLimits(attempt=3.0),
            backoff=backoff,
        )
        self.clients.append(made)
        return made

    async def emit(self, count: int, *, pause: float = 0.005) -> None:
        """Emit so many events, one after the other, each acknowledged."""
        context = UserWebSocketContext(user_id=USER, thread_id="t1")
        emitter = self._running.factory.get_user_emitter(context)
        for _ in range(count):
            word = f"word-{self.emitted}"
            receipt = emitter.custom("app.note", {"marker": word, "pad": "x" * 200})
            self.checker.acknowledged(USER, await receipt, word)
            self.emitted += 1
            await asyncio.sleep(pause)

    async def read(self, client: Client, total: int) -> None:
        """Read through the event ``total``."""
        name = f"{self._name} {self.clients.index(client)}"
        self.checker.begin(name, USER)
        async with client:
            async for event in client:
                self.checker.received(name, event, event.user_id or "")
                if event.seq == total:
                    return

    async def problems(self) -> list[object]:
        head = await self._running.factory.log.head(USER)
        return list(self.checker.problems({USER: head}))


async def test_a_client_resumes_through_a_change_of_address() -> None:
    """It hears nothing of the change; when it asks, it soon goes on where it was, from elsewhere."""
    async with bridge() as running, ChaosProxy(running.port, seed=SEED) as network:
        campaign = Campaign(running, network)
        client = campaign.client()
        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            tasks.create_task(campaign.read(client, 300))
            await campaign.emit(100)
            await until(lambda: client.stats.events == 100)
            network.apply(Action.CHANGE_ADDRESS)
            await campaign.emit(100)
            assert client.stats.events == 100
            # What a phone does when its system tells it of another network.
            await client.ping()
            await campaign.emit(100)
        assert await campaign.problems() == []
        assert client.stats.connections == 2
        assert client.stats.gaps == 0
        assert running.addresses == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.parametrize("level", ["medium", "latency"])
async def test_everything_arrives_once_at_a_level(level: str) -> None:
    """Five clients, one after the other and at once, get every event whatever the network does."""
    await play(LEVELS[level], clients=5, events=150)


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("level", ["corruption", "high", "everything"])
async def test_altered_records_are_never_believed(level: str, tmp_path: Path) -> None:
    """Over TLS a stream that was altered ends and is resumed; what arrives is what was sent."""
    corrupted = await play(LEVELS[level], clients=4, events=150, folder=tmp_path)
    assert corrupted > 5


async def play(faults: Faults, *, clients: int, events: int, folder: Path | None = None) -> int:
    """Play a network until all has arrived, and check it; return how much was altered."""
    tls: dict[str, Any] = {}
    if folder is not None:
        tls["ssl_certfile"], tls["ssl_keyfile"] = write_certificate(folder)
    began = time.monotonic()
    async with (
        bridge(Limits(heartbeat_interval=1.0), **tls) as running,
        ChaosProxy(running.port, faults=faults, seed=SEED) as network,
    ):
        campaign = Campaign(running, network, certfile=tls.get("ssl_certfile"))
        async with asyncio.timeout(80), asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(campaign.read(campaign.client(), events))
            await campaign.emit(events)
        connections = sum(client.stats.connections for client in campaign.clients)
        count = network.journal.count
        say(
            f"{faults}: {time.monotonic() - began:.1f} s, {connections} connections, "
            f"{count(Incident.CUT, Incident.RESET)} cuts, {count(Incident.CORRUPTED)} altered"
        )
        assert await campaign.problems() == []
        return count(Incident.CORRUPTED)


async def test_fifteen_rapid_reconnects() -> None:
    """A client that is cut again and again comes back each time, and misses nothing."""
    async with bridge() as running, ChaosProxy(running.port, seed=SEED) as network:
        campaign = Campaign(running, network)
        client = campaign.client()
        script = rapid_cuts(15, interval=0.2, seed=SEED)
        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            tasks.create_task(campaign.read(client, 400))
            playing = tasks.create_task(network.play(script))
            await campaign.emit(399)
            await playing
            await campaign.emit(1)
        assert await campaign.problems() == []
        assert client.stats.connections >= 14


async def test_a_proxy_that_cuts_what_is_idle_never_cuts_a_bridge() -> None:
    """Heartbeats come well before its patience ends."""
    limits = Limits(heartbeat_interval=0.2)
    async with (
        bridge(limits) as running,
        ChaosProxy(running.port, faults=Faults(idle_timeout=0.8)) as network,
    ):
        campaign = Campaign(running, network)
        client = campaign.client()
        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            tasks.create_task(campaign.read(client, 2))
            await campaign.emit(1)
            # Three times the patience of the proxy, in which nobody says anything.
            await asyncio.sleep(2.5)
            await campaign.emit(1)
        assert client.stats.connections == 1
        assert network.journal.count(Incident.CUT, Incident.RESET) == 0


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_everything_arrives_once_on_the_way() -> None:
    """On each network that people carry about, with what befalls it in 12 seconds."""
    async with bridge(Limits(heartbeat_interval=1.0)) as running, AsyncExitStack() as stack:
        checker = OrderingChecker()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for profile in PROFILES.values():
                proxy = ChaosProxy(running.port, faults=profile.faults, seed=SEED)
                network = await stack.enter_async_context(proxy)
                campaign = Campaign(running, network, checker=checker, name=profile.name)
                tasks.create_task(campaign.read(campaign.client(), 600))
                tasks.create_task(campaign.read(campaign.client(), 600))
                tasks.create_task(network.play(profile.script(SEED, 12.0)))
            await campaign.emit(600, pause=0.02)
        assert await campaign.problems() == []

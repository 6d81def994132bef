"""asyncio's own connecting and listening, on a simulated network; and the whole bridge on it."""

from __future__ import annotations

import asyncio

import pytest
from uvicorn.server import ServerState

from catenary import UserWebSocketContext, WebSocketBridgeFactory
from catenary.client import Client
from catenary.eventlog.memory import MemoryLog
from catenary.serving.asgi import BridgeApp
from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.server import config_for
from catenary.validate.simulation import Link, Network, SimulatedLoop, Simulation


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def test_streams_connect_over_it() -> None:
    """Two loops, one network: asyncio's streams see an ordinary connection."""
    simulation, network = Simulation(), Network()
    server = SimulatedLoop(simulation, network=network)
    client = SimulatedLoop(simulation, network=network)

    async def listen() -> asyncio.AbstractServer:
        return await server.create_server(Echo, "echo", 7)

    async def ask() -> bytes:
        transport, protocol = await client.create_connection(asyncio.Protocol, "echo", 7)
        reader = asyncio.StreamReader()
        transport.set_protocol(asyncio.StreamReaderProtocol(reader))
        transport.write(b"hello\n")
        assert protocol is not None
        return await reader.readline()

    listening = server.run_until_complete(listen())
    assert listening.is_serving()
    assert client.run_until_complete(ask()) == b"hello\n"
    assert simulation.now == pytest.approx(0.004)
    listening.close()
    with pytest.raises(ConnectionRefusedError, match="echo:7"):
        client.run_until_complete(ask())


def test_who_listens_last_answers() -> None:
    """A server that comes in place of another is not closed by its end."""
    loop, network = SimulatedLoop(), Network()
    first = network.listen(loop, Echo, "echo", 7)
    second = network.listen(loop, Echo, "echo", 7)
    first.close()
    assert second.is_serving()
    assert not first.is_serving()


def test_links_are_made_as_it_is_told() -> None:
    """Another latency, or other limits, for whoever connects."""
    simulation, network = Simulation(), Network()
    loop = SimulatedLoop(simulation, network=network)
    network.make_link = lambda client, server: Link(client, server, latency=2.0)
    network.listen(loop, Echo, "echo", 7)
    loop.run_until_complete(loop.create_connection(asyncio.Protocol, "echo", 7))
    assert simulation.now == 4.0
    assert [link.latency for link in network.links] == [2.0]


def test_a_loop_without_a_network_says_so() -> None:
    loop = SimulatedLoop()
    with pytest.raises(NotImplementedError, match="give it one"):
        loop.run_until_complete(loop.create_connection(asyncio.Protocol, "echo", 7))


def test_the_bridge_and_its_client_run_on_it() -> None:
    """The real server and the real client: a cut of the network, and everything arrives once."""
    simulation, network = Simulation(), Network()
    server = SimulatedLoop(simulation, network=network)
    phone = SimulatedLoop(simulation, network=network)
    factory = WebSocketBridgeFactory(MemoryLog(clock=lambda: 1_800_000_000 + server.time()))

    async def authenticate(_request: object) -> str:
        return "user_123"

    config = config_for(BridgeApp(factory, authenticate=authenticate))
    config.load()
    network.listen(server, lambda: HTTPProtocol(config, ServerState(), {}), "bridge", 80)
    server.run_until_complete(factory.start())
    emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))

    async def emit() -> None:
        for number in range(10):
            emitter.custom("app.tick", {"number": number})
            await asyncio.sleep(1.0)

    async def read() -> list[int]:
        async with Client("ws://bridge/ws") as client:
            return [(await anext(client)).data["number"] for _ in range(10)]

    emitting = server.create_task(emit())

    def cut() -> None:
        network.links[0].cut()

    phone.call_later(4.5, cut)
    assert phone.run_until_complete(read()) == list(range(10))
    assert len(network.links) == 2
    assert emitting.done() or simulation.now < 12
    server.run_until_complete(emitting)
    server.run_until_complete(factory.stop())

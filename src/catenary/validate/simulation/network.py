"""A network in virtual time: who listens where, and the connections that were made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from catenary.validate.simulation.link import Link, ProtocolFactory
from catenary.validate.simulation.loop import SimulatedLoop

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Listener(NamedTuple):
    """Who answers under an address."""

    loop: SimulatedLoop
    factory: ProtocolFactory


class Server(asyncio.AbstractServer):
    """What listens on a network, until it is closed."""

    def __init__(self, network: Network, address: tuple[str, int], listener: Listener) -> None:
        self._network = network
        self._address = address
        self._listener = listener
        network.listeners[address] = listener

    def close(self) -> None:
        """Listen no more; connections stay. Idempotent."""
        if self.is_serving():
            del self._network.listeners[self._address]

    def is_serving(self) -> bool:
        """Whether it listens."""
        return self._network.listeners.get(self._address) is self._listener

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of whoever listens."""
        return self._listener.loop

    async def start_serving(self) -> None:
        """Do nothing: it listens from the beginning."""

    async def serve_forever(self) -> None:
        """Wait until cancelled; then close."""
        try:
            await self._listener.loop.create_future()
        finally:
            self.close()

    async def wait_closed(self) -> None:
        """Do nothing: it is closed at once."""


class Network:
    """
    Addresses, and the connections between the loops that use them.

    A loop that is given a network listens and connects there with asyncio's
    own ``create_server`` and ``create_connection``.

    Attributes:
        links: Every connection that was made, oldest first.
        listeners: Who answers, by host and port.
        make_link: Makes the connection between a client's loop and a server's;
            replace it for another latency, or other limits.
    """

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.listeners: dict[tuple[str, int], Listener] = {}
        self.make_link: Callable[[SimulatedLoop, SimulatedLoop], Link] = Link

    def listen(self, loop: SimulatedLoop, factory: ProtocolFactory, host: str, port: int) -> Server:
        """Answer under an address, in place of whoever did."""
        return Server(self, (host, port), Listener(loop, factory))

    async def connect(
        self, loop: SimulatedLoop, factory: Callable[[], P], host: str, port: int
    ) -> tuple[asyncio.Transport, P]:
        """
        Connect to who answers under an address.

        Raises:
            ConnectionRefusedError: If nobody does.
        """
        listener = self.listeners.get((host, port))
        if listener is None:
            raise ConnectionRefusedError(f"nobody listens on {host}:{port}")
        link = self.make_link(loop, listener.loop)
        self.links.append(link)
        return await link.open(factory, listener.factory)

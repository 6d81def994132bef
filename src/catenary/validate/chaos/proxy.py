"""The chaos proxy: a network that breaks, between a client and a server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Self

from catenary.errors import UsageError
from catenary.validate.chaos.faults import CALM, Ending, Faults, Seed
from catenary.validate.chaos.journal import Entry, Journal
from catenary.validate.chaos.path import Path
from catenary.validate.chaos.relay import Relay
from catenary.validate.chaos.script import Action, Script
from catenary.validate.chaos.target import HOST, Target

BUFFER_BYTES = 256 * 1024


class ChaosProxy:
    """
    Passes TCP connections on to a server, through a network that breaks.

    It listens on a free port of 127.0.0.1 while it is open::

        async with ChaosProxy("ws://127.0.0.1:8000/ws", faults=LEVELS["medium"], seed=7) as network:
            async with Client(network.url_for("ws://127.0.0.1:8000/ws")) as client:
                network.apply(Action.CHANGE_ADDRESS)

    Bytes are passed on as they are, so TLS goes through untouched, and what
    corruption hits are its records. What befalls connection ``n`` is drawn from
    the seed and ``n``, whatever other connections do.

    Everything but :attr:`journal` is for the thread of its event loop; threads
    without one use :class:`BlockingChaosProxy`. When it is closed nothing of it
    is left: no task, no socket.
    """

    def __init__(
        self,
        target: str | int,
        *,
        faults: Faults = CALM,
        seed: Seed = 0,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """
        Describe a proxy; it listens when it is opened.

        Args:
            target: The server: a port of this machine, ``host:port``, or a URL of it.
            faults: What the network does from the beginning.
            seed: What chance is drawn from.
            buffer_bytes: How much may be under way in each direction of a connection; what
                is sent beyond that waits at its sender. A connection carries at most so
                much in the time of its delay.

        Raises:
            UsageError: If the target cannot be read.
        """
        self._target = Target.parse(target)
        self._faults = faults
        self._seed = seed
        self._buffer_bytes = buffer_bytes
        self._server: asyncio.Server | None = None
        self._relays: set[Relay] = set()
        self._numbers = itertools.count(1)
        self._addresses = itertools.cycle(f"127.0.0.{number}" for number in range(2, 255))
        self._address: str | None = None
        self._is_stalled = False
        self._is_refusing = False
        self._closed = asyncio.Event()
        self._emptied = asyncio.Event()
        self._began = 0.0
        self.journal = Journal()
        """What happened so far."""
        self.port = 0
        """Where it listens, once it is open."""

    # Life

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """
        Listen on a free port.

        Raises:
            UsageError: If it was opened before.
        """
        if self._server is not None:
            raise UsageError("a proxy is opened once; make another")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._began = loop.time()
        self.journal.begin()

    async def close(self) -> None:
        """Reset what is open, and wait until nothing is left. Idempotent."""
        if self._server is None or self._closed.is_set():
            return
        self._closed.set()
        self._server.close()
        # What was accepted in this turn of the loop becomes a relay in the next.
        await asyncio.sleep(0)
        for relay in self._relays:
            relay.close(Ending.RESET)
        while self._relays:
            self._emptied.clear()
            await self._emptied.wait()
        await self._server.wait_closed()

    # What one can see

    @property
    def faults(self) -> Faults:
        """What the network does now."""
        return self._faults

    @property
    def connection_count(self) -> int:
        """How many connections are there, those that have gone silent too."""
        return len(self._relays)

    def url_for(self, url: str) -> str:
        """
        Return a URL of the server as it is through the proxy.

        ``localhost`` stays, for the sake of certificates; any other host becomes 127.0.0.1.

        Raises:
            UsageError: If the URL is none of the target, or the proxy is not open.
        """
        self._check_open()
        return self._target.url_through(self.port, url)

    # What one can do

    def apply(self, what: Action | Faults) -> None:
        """
        Do something to the network now, or have other faults hold from now on.

        Other faults hold for open connections and for new ones.

        Raises:
            UsageError: If the proxy is not open, or cannot change its address.
        """
        self._check_open()
        if isinstance(what, Faults):
            self._note(None, "faults", str(what))
            self._faults = what
            for relay in self._relays:
                relay.path.change(what)
        else:
            self._act(Action(what))
            self._note(None, what)
        for relay in list(self._relays):
            relay.pump()

    async def play(self, script: Script) -> None:
        """
        Play a script, from now on; return at its end, or when the proxy is closed.

        Raises:
            UsageError: As :meth:`apply` does.
        """
        self._check_open()
        began = asyncio.get_running_loop().time()
        for step in script.steps:
            if await self._is_closed_by(began + step.at):
                return
            self.apply(step.what)
        await self._is_closed_by(began + script.duration)

    # Inside

    def _check_open(self) -> None:
        if self._server is None or self._closed.is_set():
            raise UsageError("the proxy is not open; use it within its block")

    async def _is_closed_by(self, moment: float) -> bool:
        try:
            async with asyncio.timeout_at(moment):
                await self._closed.wait()
        except TimeoutError:
            return False
        return True

    def _accept(self) -> asyncio.Protocol:
        loop = asyncio.get_running_loop()
        now = loop.time()
        number = next(self._numbers)
        path = Path(seed=self._seed, number=number, faults=self._faults, now=now)
        if self._is_refusing:
            path.refuse()
        if self._is_stalled:
            path.hold(now)
        relay = Relay(
            path,
            self._dial,
            buffer_bytes=self._buffer_bytes,
            note=self._note,
            on_gone=self._forget,
        )
        self._relays.add(relay)
        return relay.client

    async def _dial(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        local = None if self._address is None else (self._address, 0)
        host, port = self._target
        await asyncio.get_running_loop().create_connection(protocol, host, port, local_addr=local)

    def _forget(self, relay: Relay) -> None:
        self._relays.discard(relay)
        self._emptied.set()

    def _note(self, connection: int | None, what: str, detail: str = "") -> None:
        at = asyncio.get_running_loop().time() - self._began
        self.journal.note(Entry(at, connection, what, detail))

    def _act(self, action: Action) -> None:
        now = asyncio.get_running_loop().time()
        paths = [relay.path for relay in self._relays]
        match action:
            case Action.CUT | Action.RESET:
                for path in paths:
                    path.cut(Ending.END if action is Action.CUT else Ending.RESET)
            case Action.STALL | Action.GO_ON:
                self._is_stalled = action is Action.STALL
                for path in paths:
                    (path.hold if self._is_stalled else path.release)(now)
            case Action.REFUSE | Action.ACCEPT:
                self._is_refusing = action is Action.REFUSE
            case Action.HALF_OPEN | Action.CHANGE_ADDRESS:
                if action is Action.CHANGE_ADDRESS:
                    self._address = self._target.usable_address(next(self._addresses))
                for path in paths:
                    path.silence()

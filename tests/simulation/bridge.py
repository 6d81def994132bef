"""A server process of a simulated world: a bridge, and the protocols that ``catenary serve`` uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from starlette.requests import HTTPConnection
from uvicorn.server import ServerState

from catenary import Identity, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.eventlog.base import EventLog
from catenary.inbound import Message
from catenary.limits import Limits
from catenary.serving.asgi import BridgeApp
from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.server import config_for
from catenary.surroundings import Surroundings
from catenary.validate.simulation.loop import SimulatedLoop
from catenary.validate.simulation.network import Network
from tests.simulation.ledger import Ledger
from tests.simulation.schedule import Setup

HOST, PORT = "bridge", 80
WALL_CLOCK = 1_800_000_000.0
"""What the clock on the wall says when a simulation begins."""

SLOW_TURNS = (0.0, 0.0002, 0.002)
TOKEN_SECONDS = 40.0
HANDLER_SECONDS = 3.0


class Stopwatch:
    """A stopwatch on which each look takes some of the processor's time."""

    def __init__(self, loop: SimulatedLoop, look: float) -> None:
        self._loop = loop
        self._look = look
        self._spent = 0.0

    def __call__(self) -> float:
        """Return the seconds by now."""
        self._spent += self._look
        return self._loop.time() + self._spent


class Bridge:
    """One server process: it listens, serves, and leaves in order or dies."""

    def __init__(
        self, loop: SimulatedLoop, network: Network, log: EventLog, ledger: Ledger, setup: Setup
    ) -> None:
        self.loop = loop
        self.log = log
        self._network = network
        self._ledger = ledger
        self._setup = setup
        chance = Random(loop.name)
        self.factory = WebSocketBridgeFactory(
            log,
            limits=Limits(tail_bytes=0) if setup.small_tails else Limits(),
            surroundings=Surroundings(
                Stopwatch(loop, SLOW_TURNS[setup.slow_turn % len(SLOW_TURNS)]), chance.uniform
            ),
            run_drain_timeout=2.0,
        )
        self.factory.sweep_interval = 5.0
        self.factory.on_message("sim.note")(self._handle)
        app = BridgeApp(self.factory, authenticate=self._authenticate)
        self._config = config_for(app)
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.AbstractServer | None = None
        self.is_serving = False
        self._leaving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, and open the log behind that."""
        self._server = self._network.listen(self.loop, self._protocol, HOST, PORT)
        self.is_serving = True
        starting = self.loop.create_task(self.factory.start())
        starting.add_done_callback(lambda task: task.result())

    def _protocol(self) -> asyncio.BaseProtocol:
        return HTTPProtocol(self._config, self._state, {})

    async def _authenticate(self, connection: HTTPConnection) -> Identity:
        until = self.log.now_ms() / 1000 + TOKEN_SECONDS if self._setup.short_tokens else None
        return Identity(user_id=connection.headers["x-user"], expires_at=until)

    # What clients ask

    async def _handle(self, message: Message, emitter: UserWebSocketEmitter) -> object:
        ledger, log_id = self._ledger, emitter.stream.log_id
        key = ledger.asked(log_id, message.id)
        ledger.started[key] += 1
        marker = ledger.marker()
        receipt = emitter.custom("sim.handled", {"marker": marker})
        ledger.say(receipt, marker, log_id=log_id, thread_id=emitter.context.thread_id)
        if message.data.get("slow"):
            await asyncio.sleep(HANDLER_SECONDS)
        reply = ledger.replies[key] = {"handled": marker}
        return reply

    # Ending

    def leave(self, then: Callable[[], None]) -> None:
        """Begin to leave in order, as ``catenary serve`` does at SIGTERM; ``then`` follows once."""
        if self._leaving is None:
            self._leaving = self.loop.create_task(self._leave())
            self._leaving.add_done_callback(lambda task: self._left(task, then))

    def _left(self, task: asyncio.Task[None], then: Callable[[], None]) -> None:
        if not task.cancelled():
            task.result()
            then()

    async def _leave(self) -> None:
        await self.factory.drain()
        self.stop_listening()
        for connection in list(self._state.connections):
            connection.shutdown()
        async with asyncio.timeout(15):
            while self._state.connections or self._state.tasks:
                await asyncio.sleep(0.1)
        await self.factory.stop()

    def stop_listening(self) -> None:
        """Take no further connections."""
        self.is_serving = False
        if self._server is not None:
            self._server.close()

    @property
    def is_leaving(self) -> bool:
        """Whether it was asked to leave, and may still be there."""
        return self._leaving is not None

    @property
    def has_left(self) -> bool:
        """Whether it has left in order."""
        return self._leaving is not None and self._leaving.done()

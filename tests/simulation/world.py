"""A simulated world: a server, applications, a network between them, and what happens to it all."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from catenary.errors import CatenaryError
from catenary.eventlog.model import Page, Retention
from catenary.position import Position
from catenary.transport import HIGH_WATER_BYTES
from catenary.validate.simulation import Link, Network, SimulatedLoop, Simulation
from catenary.validate.simulation.course import oldest
from tests.simulation.app import App
from tests.simulation.bridge import WALL_CLOCK, Bridge
from tests.simulation.happening import perform
from tests.simulation.judge import Judge, Kind, LogView
from tests.simulation.ledger import Ledger
from tests.simulation.logs import DELAYS, SlowLog, SlowMemoryLog, SlowSqliteLog
from tests.simulation.machine import SimulatedMachine
from tests.simulation.producer import HUGE_BYTES, Producer
from tests.simulation.schedule import (
    PRODUCERS,
    READERS,
    USERS,
    After,
    AnyOperation,
    LogKind,
    Retain,
    Setup,
    Stop,
    Wire,
)

Work = Callable[..., Coroutine[Any, Any, Any]]

RETENTIONS = {
    Retain.ALL: Retention(),
    Retain.FEW: Retention(events=8, open_events=24),
    Retain.FEW_BYTES: Retention(bytes=40_000, open_bytes=120_000),
    Retain.SHORT: Retention(age=30.0),
}

PACES = (0, 1, 2, 3, 5, 8, 20, 60)
"""How many callbacks run between two operations."""

SOON = 0.05
"""How far time may go on between two operations, unless one of them is a wait."""

SHARED_MEMORY = Path("/dev/shm")
NEVER = 1 << 40

DOWN_SECONDS = 0.4
"""Between the end of one server and the beginning of the next."""

UNSENT_LIMIT_BYTES = 2 * HIGH_WATER_BYTES + HUGE_BYTES + 16 * 1024
"""What may wait in the server for one connection: a full buffer, one turn, some answers."""


def make_link(wire: Wire, client: SimulatedLoop, server: SimulatedLoop) -> Link:
    """Return a connection of a kind."""
    if wire is Wire.SLOW:
        return Link(client, server, latency=0.5)
    if wire is Wire.PIECES:
        return Link(client, server, segment_bytes=700)
    if wire is Wire.NARROW:
        return Link(client, server, window_bytes=4_000)
    return Link(client, server, idle_limit=60.0 if wire is Wire.PROXY else None)


class World:
    """Everything that there is, and how it goes on."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.simulation = Simulation()
        self.simulation.callback_seconds = 0.001 * setup.slow_machine
        self.network = Network()
        self.network.make_link = lambda *ends: make_link(setup.wire, *ends)
        self.ledger = Ledger(lambda: self.simulation.now)
        self.judge = Judge(self.ledger, RETENTIONS[setup.retain])
        self.apps: dict[int, App] = {}
        """By number of the reader: its application, while that runs."""
        self.kept: dict[int, Position | None] = {}
        """By number of the reader: the place that its application kept when it ended."""
        self.loops: list[SimulatedLoop] = []
        self._gone: set[SimulatedLoop] = set()
        self.ground = self._new_loop("ground")
        self._folder = TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.exists() else None)
        self._file = Path(self._folder.name) / "events.db"
        self._logs: list[tuple[SimulatedLoop, SlowLog]] = []
        self.log: SlowLog
        self.bridge = self._new_bridge()

    def _new_loop(self, name: str) -> SimulatedLoop:
        number = len(self.loops)
        loop = SimulatedLoop(self.simulation, name=f"{name} {number}", network=self.network)
        loop.set_exception_handler(self._raised)
        self.loops.append(loop)
        return loop

    def _raised(self, _loop: object, context: dict[str, Any]) -> None:
        self.judge.note(Kind.ERROR, f"{context.get('message')}: {context.get('exception')!r}")

    # Going on

    def happen(self, operation: AnyOperation) -> None:
        """Let an operation happen, and the world go on at its pace."""
        self.judge.write("schedule", operation)
        self.stir(operation.stir)
        perform(operation, self)
        self._go_on(PACES[operation.pace % len(PACES)])
        self.look()

    def stir(self, seed: int) -> None:
        """Let callbacks run in an order of this number; 0 is their own."""
        chance = Random(seed).random
        self.simulation.choose = (lambda count: int(chance() * count)) if seed else oldest

    def _go_on(self, steps: int) -> None:
        simulation = self.simulation
        end = simulation.now + SOON
        for _ in range(steps):
            if not simulation.step() and not simulation.jump(end):
                return

    def let_pass(self, seconds: float) -> None:
        """Let time go on."""
        simulation = self.simulation
        end = simulation.now + seconds
        while simulation.step() or simulation.jump(end):
            pass

    def wait_for(self, is_done: Callable[[], bool], seconds: float) -> bool:
        """Go on until something holds while nothing is ready, at most for so long; whether it does."""
        simulation = self.simulation
        end = simulation.now + seconds
        while True:
            while simulation.step():
                pass
            if is_done():
                return True
            if not simulation.jump(end):
                return False

    def look(self) -> None:
        """Note what is true now."""
        self.ledger.settle()
        for user_id in USERS:
            self.ledger.note_epoch(user_id, self.log.stream(user_id).epoch)
        for reader, app in list(self.apps.items()):
            app.begin()
            if app.is_over:
                self._let_go(reader)
        for link in self.network.links:
            unsent = link.server.get_write_buffer_size()
            if unsent > UNSENT_LIMIT_BYTES:
                self.judge.note(Kind.UNBOUNDED, f"{unsent:,} bytes wait for one connection")

    # The server

    def _new_log(self, loop: SimulatedLoop) -> SlowLog:
        setup = self.setup
        clock = lambda: WALL_CLOCK + self.simulation.now  # noqa: E731
        delay = DELAYS[setup.slow_log % len(DELAYS)]
        retention = RETENTIONS[setup.retain]
        if setup.log is LogKind.MEMORY:
            return SlowMemoryLog(retention=retention, clock=clock, delay=delay, observer=self)
        chance = Random(loop.name)
        machine = SimulatedMachine(loop, uniform=chance.uniform, delay=delay)
        return SlowSqliteLog(
            self._file, machine=machine, retention=retention, clock=clock, observer=self
        )

    def saw_place(self, log_id: str, place: Position) -> None:
        """Note in which term a log found a place for a reader."""
        self.ledger.note_epoch(log_id, place.epoch)

    def saw_page(self, log_id: str, after: Position, page: Page) -> None:
        """Let the judge look at a gap, beside what the store holds."""
        self.ledger.note_epoch(log_id, page.place.epoch)
        if page.gap is None:
            return
        stream = self.log.stream(log_id)
        self.ledger.settle()
        self.ledger.note_epoch(log_id, stream.epoch)
        epochs, held = self.ledger.epochs[log_id], self.log.held(log_id)
        view = LogView(log_id, stream.position, epochs, held, self.simulation.now)
        self.judge.saw_gap(view, after, page.gap)

    def _new_bridge(self) -> Bridge:
        loop = self._new_loop("server")
        self.log = self._new_log(loop)
        self._logs.append((loop, self.log))
        bridge = Bridge(loop, self.network, self.log, self.ledger, self.setup)
        bridge.start()
        self._producers = [Producer(bridge, self.ledger, *who) for who in PRODUCERS]
        return bridge

    @property
    def is_up(self) -> bool:
        """Whether there is a server's process; it may be leaving, or stand still."""
        return self.bridge.loop not in self._gone

    def producer(self, number: int) -> Producer:
        """Return a producer in the server's process."""
        return self._producers[number % len(self._producers)]

    @property
    def runs_of_verbs(self) -> set[str]:
        """The runs that producers hold open by their verbs, for as long as they like."""
        return set().union(*(producer.open_runs for producer in self._producers))

    def on_server(self, work: Work, *arguments: Any) -> None:
        """Do something in the server's process; where its log cannot, it is not done."""
        if self.is_up:
            self.bridge.loop.create_task(_tried(work, *arguments))

    async def erase(self, user_id: str, thread_id: str | None) -> None:
        """Erase a thread or all of a user, and note through where."""
        stream, note = self.log.stream(user_id), self.ledger.note_erasure
        note(user_id, thread_id, NEVER)
        await self.bridge.factory.erase(user_id, thread_id)
        note(user_id, thread_id, stream.head)

    def take_log_away(self, seconds: float) -> None:
        """Let the log be neither read nor written for a while."""
        self.log.is_away = self.ledger.was_disturbed = True
        self.ground.call_later(seconds, self._bring_back, self.log)

    def _bring_back(self, log: SlowLog) -> None:
        log.is_away = False

    def freeze_bridge(self, seconds: float) -> None:
        """Let the server's process stand still for a while."""
        loop = self.bridge.loop
        if self.is_up:
            self.simulation.freeze(loop)
            self.ground.call_later(seconds, self._thaw, loop)

    def _thaw(self, loop: SimulatedLoop) -> None:
        if loop not in self._gone:
            self.simulation.thaw(loop)

    def stop_bridge(self, how: Stop) -> None:
        """Begin to end the server's process; another one follows it."""
        if how is Stop.GRACEFUL:
            self.bridge.leave(self._end_bridge)
        else:
            self.bridge.stop_listening()
            self._end_bridge()

    def _end_bridge(self) -> None:
        gone = self.bridge.loop
        if gone not in self._gone:
            self.ledger.end_process()
            self._bury(gone)
            self._move_file()
            self.ground.call_later(DOWN_SECONDS, self._follow)

    def _move_file(self) -> None:
        """Go on with a copy of the log's file, as the process left it: its lock ended with it."""
        left = self._file
        self._file = left.with_name(f"events-{len(self.loops)}.db")
        for ending in ("", "-wal"):
            file = left.with_name(left.name + ending)
            if file.exists():
                shutil.copyfile(file, self._file.with_name(self._file.name + ending))

    def _follow(self) -> None:
        """Let another server take the place of the one that is gone."""
        if self.setup.log is LogKind.MEMORY:
            self.ledger.begin_life()
        self.bridge = self._new_bridge()

    def clear_away(self) -> None:
        """Let every process end, so that nothing of this world stays in ours."""
        for link in self.network.links:
            link.cut()
        # A server that was about to leave is followed by none.
        self._gone.update(self.loops)
        for loop in self.loops:
            self.simulation.thaw(loop)
            for task in asyncio.all_tasks(loop):
                task.cancel()
        for loop, log in self._logs:
            loop.create_task(_tried(log.stop))
        self.let_pass(60.0)
        self._folder.cleanup()

    # Applications

    def reader(self, number: int) -> int:
        """Return the number of a reader."""
        return number % len(READERS)

    def open_app(self, reader: int, after: After | Position) -> None:
        """Start the application of a reader, unless it runs."""
        if reader in self.apps:
            return
        user_id, thread_ids = READERS[reader]
        place = self.kept.get(reader) if after is After.LAST else after
        self.apps[reader] = App(
            f"reader {reader}",
            self._new_loop(f"reader {reader}"),
            self.judge,
            user_id=user_id,
            thread_ids=thread_ids,
            after=place.name.lower() if isinstance(place, After) else place and str(place),
        )

    def link_of(self, reader: int) -> Link | None:
        """Return the latest connection of a reader's application."""
        app = self.apps.get(reader)
        if app is None:
            return None
        links = [link for link in self.network.links if link.client.loop is app.loop]
        return links[-1] if links else None

    def kill_app(self, reader: int) -> None:
        """Let the process of a reader's application end at once."""
        if reader in self.apps:
            self._let_go(reader)

    def _let_go(self, reader: int) -> None:
        app = self.apps.pop(reader)
        app.begin()
        failure = app.failure()
        if failure is not None:
            self.judge.note(Kind.ERROR, f"{app.name} failed: {failure!r}")
        self.kept[reader] = app.position
        self._bury(app.loop)

    def _bury(self, loop: SimulatedLoop) -> None:
        """End a process: it runs no more, and its kernel closes its connections."""
        self._gone.add(loop)
        self.simulation.freeze(loop)
        for link in self.network.links:
            for end in (link.client, link.server):
                if end.loop is loop:
                    end.abort()


async def _tried(work: Work, *arguments: Any) -> None:
    with contextlib.suppress(CatenaryError):
        await work(*arguments)

"""The monitors of a live bridge: silent where all is well, and finding what was planted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catenary import UserWebSocketContext, WebSocketBridgeFactory
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.limits import Limits
from catenary.observe.monitoring import Monitoring
from catenary.observe.tap import Tap
from catenary.transport import FrontTransport, Transport
from catenary.wires.native import payload_of, split_frames, text_frame
from tests.e2e.support import Reader, bridge
from tests.eventlog.files import locked
from tests.observe.test_metrics import Shown
from tests.serving.bridges import bridge_on
from tests.serving.test_sse import streaming

QUICK = Monitoring(interval=0.02)
PATIENCE = 10.0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


def records_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the monitors warned of."""
    return [record for record in caplog.records if record.name == "catenary.monitor"]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in records_in(caplog)]


async def is_tapped(factory: WebSocketBridgeFactory) -> None:
    """Wait until every connection is looked at."""
    await until(
        lambda: all(
            isinstance(connection.transport, Tap)
            for connection in factory.manager.open_connections()
        )
    )


# All is well


@pytest.mark.parametrize("path", ["fast", "plain"])
async def test_a_bridge_that_keeps_its_promises_is_silent(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Events live and read back, merged, filtered and after a gap: checked, and nothing found."""
    factory = WebSocketBridgeFactory(
        "memory://?private",
        monitoring=QUICK,
        limits=Limits(heartbeat_interval=0.2),
        run_drain_timeout=0.2,
    )
    async with bridge_on(path, factory=factory) as running:
        emitter, other = running.emitter(), running.emitter(thread_id="t2")
        emitter.agent_started("scout")
        async with (
            running.connected() as client,
            running.connected("?after=zz:5") as returned,
            running.connected("?thread_id=t1") as filtered,
        ):
            for each in (client, returned, filtered):
                await each.until("live")
            await is_tapped(factory)
            for _ in range(50):
                emitter.agent_delta("a piece ")
                await other.custom("app.note")
            for _ in range(20):
                emitter.agent_delta("a piece ")
            factory.log.drop_tail(emitter.stream)
            await factory.log.new_term("user_123")
            await emitter.agent_completed({"answer": 42})
            for each in (client, returned, filtered):
                await each.until("agent_completed")
                await each.until("heartbeat")
            found = factory.manager.counters.monitor
            await until(lambda: found.events_checked == 2 * 102 + 52)
            assert factory.manager.counters.events_merged == 3 * 19
            shown = Shown(factory)
            assert shown["monitor_connections_sampled"] == 3
            assert shown["monitor_latency_seconds_count"] == 2 * 102 + 52
            assert found.violations == {}
        assert warnings_in(caplog) == []


async def test_server_sent_events_are_looked_at_too(caplog: pytest.LogCaptureFixture) -> None:
    """They are connections like any other."""
    factory = WebSocketBridgeFactory("memory://?private", monitoring=QUICK, run_drain_timeout=0.2)
    async with bridge_on("fast", factory=factory) as running, streaming(running) as stream:
        await stream.until("live")
        await is_tapped(factory)
        running.emitter().custom("app.note")
        await stream.until("app.note")
        found = factory.manager.counters.monitor
        await until(lambda: found.events_checked == 1)
        assert found.violations == {}
    assert warnings_in(caplog) == []


# What is planted


class Spoiling(FrontTransport):
    """A transport that spoils what a connection writes, frame by frame."""

    def __init__(self, behind: Transport, spoil: Callable[[list[bytes]], list[bytes]]) -> None:
        super().__init__(behind)
        self._spoil = spoil

    def write(self, data: bytes) -> None:
        """Send what is left of it."""
        spoiled = self._spoil(list(split_frames(data)))
        if spoiled:
            self.behind.write(b"".join(spoiled))


def changed(frame: bytes, **fields: Any) -> bytes:
    return text_frame(msgspec.json.encode({**msgspec.json.decode(payload_of(frame)), **fields}))


PLANTS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "hole": lambda frames: frames[:1] + frames[2:],
    "double": lambda frames: [frames[0], *frames],
    "swap": lambda frames: [frames[0], frames[2], frames[1], *frames[3:]],
    "foreign": lambda frames: [changed(frames[0], user_id="user_456"), *frames[1:]],
    "unreadable": lambda frames: [text_frame(b'{"type":'), *frames],
}


@pytest.mark.parametrize("fault", PLANTS)
async def test_a_fault_on_a_connection_is_found(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A metric by its name, and a warning with the connection, the user and what to look at."""
    async with bridge(monitoring=QUICK) as running:
        reader = await Reader.open(running, "user_123", keep=False)
        await reader.until(lambda: reader.live)
        await is_tapped(running.factory)
        (connection,) = running.factory.manager.open_connections()
        connection.transport = Spoiling(connection.transport, PLANTS[fault])
        emitter = running.emitter("user_123")
        for _ in range(5):
            emitter.custom("app.note")
        found = running.factory.manager.counters.monitor
        await until(lambda: found.violations[fault])
        connection.transport = connection.transport.behind
        shown = Shown(running.factory)
        assert shown[f"monitor_violations_total:{fault}"] == 1
        if fault == "swap":
            assert found.violations == {"hole": 1, "swap": 1}
        else:
            assert found.violations == {fault: 1}
    (record,) = [
        record
        for record in records_in(caplog)
        if f"wrong delivery ({fault})" in record.getMessage()
    ]
    assert record.levelname == "WARNING"
    assert record.connection_id == reader.head["connection_id"]  # type: ignore[attr-defined]
    assert record.user_id == "user_123"  # type: ignore[attr-defined]
    assert "catenary inspect user_123" in record.getMessage()


async def test_a_tail_that_lost_a_frame_is_found(caplog: pytest.LogCaptureFixture) -> None:
    """A defect below the connection: the reader misses an event, and nothing told it."""
    async with bridge(monitoring=QUICK) as running:
        reader = await Reader.open(running, "user_123")
        await reader.until(lambda: reader.live)
        await is_tapped(running.factory)
        emitter = running.emitter("user_123")
        await emitter.custom("app.note")
        await reader.until(lambda: reader.reached == 1)
        tail = emitter.stream.tail
        assert tail is not None
        with running.factory.log._lock:
            emitter.custom("app.note")
            emitter.custom("app.note")
            first, frames, threads = tail._held
            tail._held = (first, [*frames[:-2], frames[-1], frames[-1]], threads)
        found = running.factory.manager.counters.monitor
        await until(lambda: found.violations)
        assert reader.faults
        assert found.violations == {"hole": 1, "double": 1}
    assert len(warnings_in(caplog)) == 2


async def test_a_heartbeat_that_lies_is_found(caplog: pytest.LogCaptureFixture) -> None:
    """A client that resumed from its place would lose what lies between."""
    limits = Limits(heartbeat_interval=0.1)
    async with bridge(monitoring=QUICK, limits=limits) as running:
        reader = await Reader.open(running, "user_123")
        await reader.until(lambda: reader.of_type("heartbeat"))
        await is_tapped(running.factory)
        found = running.factory.manager.counters.monitor
        assert found.violations == {}
        (connection,) = running.factory.manager.open_connections()
        connection.transport = Spoiling(
            connection.transport,
            lambda frames: [changed(frame, position="k3:99") for frame in frames],
        )
        await until(lambda: found.violations["position"])
    assert "heartbeat says k3:99" in warnings_in(caplog)[0]


async def test_an_event_of_a_thread_that_was_not_asked_for_is_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On a filtered connection."""
    async with bridge(monitoring=QUICK) as running:
        reader = await Reader.open(running, "user_123", thread_id="t1")
        await reader.until(lambda: reader.live)
        await is_tapped(running.factory)
        (connection,) = running.factory.manager.open_connections()
        connection.thread_ids = {"t1", "t2"}
        running.emitter("user_123", thread_id="t2").custom("app.note")
        found = running.factory.manager.counters.monitor
        await until(lambda: found.violations["foreign"])
    assert "is of thread t2" in warnings_in(caplog)[0]


async def test_an_event_that_is_late_is_found(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A store that stalls delays what is delivered."""
    monitoring = Monitoring(interval=0.02, latency=0.1)
    async with bridge(f"sqlite:///{tmp_path}/events.db", monitoring=monitoring) as running:
        reader = await Reader.open(running, "user_123")
        await reader.until(lambda: reader.live)
        await is_tapped(running.factory)
        emitter = running.emitter("user_123")
        await emitter.custom("app.note")
        found = running.factory.manager.counters.monitor
        await until(lambda: found.events_checked == 1)
        assert warnings_in(caplog) == []
        with locked(tmp_path / "events.db"):
            emitter.custom("app.note")
            await asyncio.sleep(0.3)
        await until(lambda: warnings_in(caplog))
        assert found.latency_seconds.total >= 0.3
    assert reader.head["connection_id"] in warnings_in(caplog)[0]
    assert "s after it was emitted" in warnings_in(caplog)[0]


# Runs


async def test_a_run_that_says_nothing_is_found(caplog: pytest.LogCaptureFixture) -> None:
    """With run, user, agent, last event and the tool that it waits for; until it speaks again."""
    async with bridge(monitoring=Monitoring(interval=0.02, silence=0.2)) as running:
        emitter = running.emitter("user_123", run_id="r1", thread_id="t1")
        found = running.factory.manager.counters.monitor
        emitter.agent_started("scout")
        emitter.tool_executing("search", {"q": "bridges"}, tool_call_id="c1")
        assert found.runs_silent == 0
        await until(lambda: found.runs_silent == 1)
        assert Shown(running.factory)["monitor_runs_silent"] == 1
        (record,) = records_in(caplog)
        text = record.getMessage()
        assert text.startswith(
            "run r1 of user_123 is open and silent for 0 s: agent scout, held by"
        )
        assert running.factory.log.holder in text
        assert f"its last event tool_executing at {emitter.stream.position}" in text
        assert "It waits for search." in text
        assert text.endswith("Look: catenary inspect r1")
        ids = (record.run_id, record.user_id, record.thread_id)  # type: ignore[attr-defined]
        assert ids == ("r1", "user_123", "t1")
        emitter.tool_completed("search", [], tool_call_id="c1")
        await until(lambda: found.runs_silent == 0)
        await until(lambda: found.runs_silent == 1)
        emitter.agent_completed()
        await until(lambda: found.runs_silent == 0)
    assert len(warnings_in(caplog)) == 1, "the same run is not named again so soon"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_many_open_runs_of_a_user_are_unusual(
    kind: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Of one user, on either log; when they ended it is as usual."""
    monitoring = Monitoring(interval=0.02, runs_per_user=5)
    log = "memory://?private" if kind == "memory" else f"sqlite:///{tmp_path}/events.db"
    async with bridge(log, monitoring=monitoring) as running:
        found = running.factory.manager.counters.monitor
        others = [running.emitter(f"user_{number}", run_id="r") for number in range(20)]
        mine = [running.emitter("user_123", run_id=f"r{number}") for number in range(5)]
        for emitter in (*others, *mine):
            await emitter.agent_started("scout")
        await until(lambda: found.users_crowded == 1)
        for emitter in mine:
            await emitter.agent_completed()
        await until(lambda: found.users_crowded == 0)
    (text,) = warnings_in(caplog)
    assert text.startswith("user_123 has 5 open runs")


# Connections, and the node


async def test_a_user_near_the_limit_of_connections_is_unusual(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before the longest silent one is closed."""
    limits = Limits(connections_per_user=5)
    async with bridge(monitoring=QUICK, limits=limits) as running:
        found = running.factory.manager.counters.monitor
        for _ in range(3):
            await Reader.open(running, "user_123")
        await Reader.open(running, "user_456")
        await is_tapped(running.factory)
        for count in (1, 2):
            # The second one is seen by a second look, so the first is over.
            running.emitter("user_456").custom("app.note")
            await until(lambda count=count: found.events_checked == count)  # type: ignore[misc]
        assert found.users_crowded == 0
        await Reader.open(running, "user_123")
        await until(lambda: found.users_crowded == 1)
    (text,) = warnings_in(caplog)
    assert text.startswith("user_123 has 4 connections of 5")


async def test_connections_that_break_in_numbers_are_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """12 of 16 without a close frame; those that are closed in order do not count."""
    monitoring = Monitoring(interval=0.02, drop_window=1.0)
    async with bridge(monitoring=monitoring) as running:
        found = running.factory.manager.counters.monitor
        manager = running.factory.manager
        readers = [await Reader.open(running, f"user_{number}") for number in range(20)]
        for number in range(4):
            await manager.disconnect(f"user_{number}")
        await until(lambda: manager.connection_count == 16)
        assert found.drop_ratio == 0
        for reader in readers[4:16]:
            reader.close()
        await until(lambda: manager.connection_count == 4 and found.drop_ratio == 12 / 16)
        assert Shown(running.factory)["monitor_drop_ratio"] == 0.75
        await until(lambda: found.drop_ratio == 0)
    (text,) = warnings_in(caplog)
    assert text.startswith(("12 of 16 connections broke", "11 of 15 connections broke", "10 of"))


async def test_an_intake_that_fills_is_found(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Before verbs are refused; with whose it is, and why it does not commit."""
    path = tmp_path / "events.db"
    log = SqliteLog(path, log_intake_bytes=100_000, log_reserve_bytes=1000)
    async with bridge(log, monitoring=QUICK) as running:
        found = running.factory.manager.counters.monitor
        emitter = running.emitter("user_123")
        await emitter.custom("app.note")
        await until(lambda: found.intake_ratio == 0)
        with locked(path):
            for _ in range(9):
                emitter.custom("app.note", {"pad": "x" * 10_000})
            await until(lambda: found.intake_ratio > 0.85)
        await until(lambda: found.intake_ratio == 0)
    (text,) = warnings_in(caplog)
    assert text.startswith("the intake of user_123 is full to 9")


# On, off, and whatever happens


async def test_off_means_off() -> None:
    """No task, nothing on any connection, and all its metrics at 0."""
    async with bridge(monitoring=None) as running:
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "catenary upkeep" in names
        assert "catenary monitors" not in names
        reader = await Reader.open(running, "user_123")
        running.emitter("user_123").custom("app.note")
        await reader.until(lambda: reader.reached == 1)
        (connection,) = running.factory.manager.open_connections()
        assert not isinstance(connection.transport, FrontTransport)
        shown = Shown(running.factory)
        monitors = [name for name, _ in shown.values if name.startswith("catenary_monitor_")]
        assert {shown.values[name, ()] for name in monitors if (name, ()) in shown.values} == {0}


async def test_a_sample_of_none_leaves_connections_alone() -> None:
    """The rest is looked at still."""
    monitoring = Monitoring(interval=0.02, connections=0, silence=0.1)
    async with bridge(monitoring=monitoring) as running:
        reader = await Reader.open(running, "user_123")
        running.emitter("user_123").agent_started("scout")
        found = running.factory.manager.counters.monitor
        await until(lambda: found.runs_silent)
        await reader.until(lambda: reader.reached == 1)
        (connection,) = running.factory.manager.open_connections()
        assert not isinstance(connection.transport, FrontTransport)
        assert found.events_checked == found.connections_sampled == 0


async def test_a_bridge_that_stops_leaves_nothing_on_its_connections() -> None:
    """Its sockets outlive it by a moment."""
    async with bridge(monitoring=QUICK) as running:
        await Reader.open(running, "user_123")
        await is_tapped(running.factory)
        (connection,) = running.factory.manager.open_connections()
        behind = connection.transport.behind  # type: ignore[attr-defined]
        await running.factory.stop(0)
        assert connection.transport is behind
        assert running.factory.manager.counters.monitor.connections_sampled == 0


class Stumbling(MemoryLog):
    """A log whose runs cannot be looked at, the first time."""

    stumbles = 1

    def held_runs(self) -> Any:
        if self.stumbles:
            self.stumbles -= 1
            raise RuntimeError("planted")
        return super().held_runs()


async def test_monitors_that_fail_look_again(caplog: pytest.LogCaptureFixture) -> None:
    """The failure is in the log with its traceback, and the bridge goes on."""
    monitoring = Monitoring(interval=0.02, silence=0.05)
    async with bridge(Stumbling(), monitoring=monitoring) as running:
        running.emitter("user_123").agent_started("scout")
        await until(lambda: running.factory.manager.counters.monitor.runs_silent)
    failures = [record for record in caplog.records if "the monitors failed" in record.message]
    assert len(failures) == 1
    assert failures[0].exc_info is not None


class Turns:
    """Counts the turns of the loop while it is running."""

    def __init__(self) -> None:
        self.count = 0
        self._task = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._task.cancel()


class Looking(MemoryLog):
    """A log that knows in which turn of the loop each of its streams was looked at."""

    turns: Turns | None = None

    def held_runs(self) -> Any:
        self.looked_in: list[int] = []
        for found in super().held_runs():
            self.looked_in.append(self.turns.count if self.turns is not None else 0)
            yield found


async def test_many_runs_are_looked_at_in_slices() -> None:
    """Nobody waits for the whole look: of 1,000 users at most 100 a turn."""
    log = Looking()
    factory = WebSocketBridgeFactory(log, monitoring=Monitoring(interval=0.01, silence=0.01))
    for number in range(1000):
        context = UserWebSocketContext(user_id=f"user_{number}")
        factory.get_user_emitter(context).agent_started("scout")
    async with factory:
        log.turns = Turns()
        found = factory.manager.counters.monitor
        await until(lambda: found.runs_silent == 1000)
        log.turns.stop()
        assert len(log.looked_in) == 1000
        assert max(map(log.looked_in.count, set(log.looked_in))) <= 100


async def test_many_frames_are_looked_at_in_slices() -> None:
    """Of 1,000 events at most 100 a turn."""
    async with bridge(monitoring=Monitoring(interval=0.2)) as running:
        reader = await Reader.open(running, "user_123", keep=False)
        await reader.until(lambda: reader.live)
        await is_tapped(running.factory)
        emitter = running.emitter("user_123")
        for _ in range(1000):
            emitter.custom("app.note")
        found, last = running.factory.manager.counters.monitor, 0
        async with asyncio.timeout(PATIENCE):
            while last < 1000:
                await asyncio.sleep(0)
                assert found.events_checked - last <= 100
                last = found.events_checked
        assert reader.faults == []

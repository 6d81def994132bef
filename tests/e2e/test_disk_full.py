"""A server whose disk has no room, or may not be written, and then has again."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from catenary import UserWebSocketContext, WebSocketBridgeFactory
from catenary.auth import JwtVerifier
from catenary.errors import ConfigError, LogFull, LogUnavailable
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.limits import Limits
from tests.e2e.support import API_KEY, PATIENCE, SECRET, Bridge, Reader, bridge, say
from tests.serving.sockets import serving, until

USER = "user_123"
EVENT_BYTES = 4000
SMALL_BYTES = 1024 * 1024
PAD = "x" * EVENT_BYTES


class Room(Protocol):
    """A place for a file that has little room, until it is given more."""

    directory: Path

    def enlarge(self) -> None:
        """Let there be room."""

    def shut(self) -> None:
        """Let nothing be written."""

    def end(self) -> None:
        """Leave everything as it was."""


class SmallDisk:
    """A file system of its own. Needs the right to mount one."""

    def __init__(self, directory: Path) -> None:
        # Not there: a disk that a dying process leaves mounted could not be cleaned up.
        self.directory = Path(tempfile.mkdtemp(prefix="catenary-disk-"))
        try:
            self._mount("-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs")
        except BaseException:
            self.directory.rmdir()
            raise

    def _mount(self, *words: str) -> None:
        subprocess.run(["mount", *words, str(self.directory)], check=True, capture_output=True)

    def enlarge(self) -> None:
        self._mount("-o", f"remount,rw,size={SMALL_BYTES * 64}")

    def shut(self) -> None:
        self._mount("-o", "remount,ro")

    def end(self) -> None:
        # Lazily: what a failed test has open does not keep it.
        subprocess.run(["umount", "--lazy", str(self.directory)], check=True)
        self.directory.rmdir()


class SmallFiles:
    """No file of this process may grow beyond a limit; wherever the system knows such limits."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._former = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._limit(SMALL_BYTES // 2)

    def _limit(self, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self._former[1]))

    def enlarge(self) -> None:
        self._limit(self._former[0])

    def shut(self) -> None:
        self._limit(0)

    def end(self) -> None:
        self._limit(self._former[0])


@pytest.fixture(params=[SmallDisk, SmallFiles])
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Room]:
    """A small disk, and a limit for files."""
    try:
        small: Room = request.param(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield small
    small.end()


@asynccontextmanager
async def bridge_in(room: Room) -> AsyncIterator[Bridge]:
    log = SqliteLog(room.directory / "events.db", log_intake_bytes=200_000, log_reserve_bytes=8_000)
    async with bridge(log, limits=Limits(heartbeat_interval=0.5)) as running:

        @running.factory.on_message("app.echo")
        async def echo(message: object, emitter: object) -> str:
            return "done"

        yield running


async def emit_until_full(running: Bridge) -> list[Receipt]:
    """Emit numbered events until the log takes no more of them; return all receipts."""
    emitter = running.emitter(USER)
    receipts: list[Receipt] = []
    while len(receipts) < 20_000:
        try:
            receipts.append(emitter.custom("app.note", {"n": len(receipts), "pad": PAD}))
        except LogFull as full:
            # Without a cause the store is only slower than this loop.
            if full.cause is not None:
                say(f"{len(receipts)} accepted, then: {full}")
                return receipts
        await asyncio.sleep(0.0005)
    pytest.fail("the disk was never full")


def numbers_of(reader: Reader) -> list[int]:
    return [event["data"]["n"] for event in reader.received]


async def test_a_full_disk_stops_nobody_who_reads(room: Room) -> None:
    """Emitters are told; readers stay and history is readable; with room all is as accepted."""
    async with bridge_in(room) as running, running.http() as http:
        reader = await Reader.open(running, USER)
        receipts = await emit_until_full(running)
        acknowledged = sum(receipt.is_settled for receipt in receipts)
        assert 0 < acknowledged < len(receipts)
        await reader.until(lambda: reader.reached >= acknowledged)
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        assert str(room.directory) not in ready.text
        assert (await http.get("/healthz")).status_code == 200
        published = await http.post(
            f"/api/users/{USER}/events", json={"type": "app.note", "data": {"pad": PAD}}
        )
        assert published.status_code == 503
        assert published.json()["error"] == "log_full"
        assert "retry-after" in published.headers
        history = await http.get(f"/api/users/{USER}/events", params={"limit": 10})
        assert [event["data"]["n"] for event in history.json()["events"]] == list(range(10))
        refused = await Reader.connect(running, USER)
        await refused.ended()
        assert refused.status == 503
        answer = await reader.answer_to({"type": "app.echo", "id": "m1", "data": {}})
        assert (answer["type"], answer["code"]) == ("error", "overloaded")
        assert (await reader.answer_to({"type": "ping", "id": 1}))["type"] == "pong"
        beats = len(reader.of_type("heartbeat"))
        await reader.until(lambda: len(reader.of_type("heartbeat")) > beats)
        assert reader.of_type("heartbeat")[-1]["position"].endswith(f":{reader.reached}")
        room.enlarge()
        async with asyncio.timeout(PATIENCE):
            places = [await receipt for receipt in receipts]
        assert [place.seq for place in places] == list(range(1, len(receipts) + 1))
        await _until_ready(running)
        answer = await reader.answer_to({"type": "app.echo", "id": "m1", "data": {}})
        assert answer["reply"] == "done"
        await reader.until(lambda: reader.reached == len(receipts))
        late = await Reader.open(running, USER)
        await late.until(lambda: late.reached == len(receipts))
        for each in (reader, late):
            assert (each.faults, each.gaps) == ([], [])
            assert numbers_of(each) == list(range(len(receipts)))
    await _check_file(room, len(receipts))


async def _until_ready(running: Bridge) -> None:
    async with running.http() as http, asyncio.timeout(PATIENCE):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)


async def _check_file(room: Room, count: int) -> None:
    """What is in the file is what was accepted, each once."""
    log = SqliteLog(room.directory / "events.db")
    async with WebSocketBridgeFactory(log) as factory:
        numbers = [event.data["n"] async for event in factory.events(USER)]
    assert numbers == list(range(count))


async def test_ends_of_runs_are_taken_by_a_full_log(room: Room) -> None:
    """What closes tools and runs has room of its own; what it said is there afterwards."""
    async with bridge_in(room) as running:
        speaker = running.emitter(USER, run_id="r1")
        await speaker.agent_started(agent_name="writer")
        await speaker.tool_executing("search", {}, tool_call_id="c1")
        receipts = await emit_until_full(running)
        with pytest.raises(LogFull):
            while True:
                speaker.agent_thinking("is there room?")
        ends = [speaker.tool_completed("search", [1], tool_call_id="c1"), speaker.agent_completed()]
        assert not any(receipt.is_settled for receipt in ends)
        room.enlarge()
        async with asyncio.timeout(PATIENCE):
            places = [await receipt for receipt in [*receipts, *ends]]
        assert len({place.seq for place in places}) == len(places)
        (run,) = await running.factory.runs(USER)
        assert (run.status, run.run_id) == ("completed", "r1")


@pytest.mark.slow
@pytest.mark.parametrize("room", [SmallFiles], indirect=True)
async def test_stopping_with_a_full_disk_tells_every_emitter(room: Room) -> None:
    """What the disk did not take 10 s after the end fails; what was acknowledged is there."""
    async with bridge_in(room) as running:
        receipts = await emit_until_full(running)
    room.enlarge()
    assert all(receipt.is_settled for receipt in receipts)
    outcomes = await asyncio.gather(*receipts, return_exceptions=True)
    refused = [error for error in outcomes if isinstance(error, BaseException)]
    committed = len(outcomes) - len(refused)
    assert all(isinstance(error, LogUnavailable) for error in refused)
    assert outcomes[committed:] == refused, "what was committed came before"
    assert 0 < committed < len(receipts)
    await _check_file(room, committed)


async def test_a_file_that_may_not_be_written_at_first(room: Room) -> None:
    """The server listens and is not ready; what is emitted waits, and is kept once it may."""
    room.shut()
    log = SqliteLog(room.directory / "events.db")
    factory = WebSocketBridgeFactory(log, run_drain_timeout=0.5)
    app = factory.asgi_app(verifier=JwtVerifier(secret=SECRET), api_key=API_KEY)
    async with serving(app, lifespan="on") as server:
        running = Bridge(factory, server)
        receipt = running.emitter(USER).custom("app.note", {"n": 0})
        async with running.http() as http:
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["error"]) == (503, "not_ready")
            assert (await http.get("/healthz")).status_code == 200
        refused = await Reader.connect(running, USER)
        await refused.ended()
        assert refused.status == 503
        assert not receipt.is_settled
        room.enlarge()
        async with asyncio.timeout(PATIENCE):
            assert (await receipt).seq == 1
        await _until_ready(running)
        reader = await Reader.open(running, USER)
        await reader.until(lambda: reader.reached == 1)
        reader.close()
        await until(lambda: factory.manager.connection_count == 0)


async def test_what_is_accepted_after_a_failed_opening_waits(tmp_path: Path) -> None:
    """An opening that fails refuses nothing that is emitted once that is known."""
    for number in range(20):
        directory = tmp_path / f"made later {number}"
        factory = WebSocketBridgeFactory(SqliteLog(directory / "events.db"))
        with pytest.raises(ConfigError, match="make this directory"):
            await factory.start()
        receipt = factory.get_user_emitter(UserWebSocketContext(user_id=USER)).custom("app.note")
        directory.mkdir()
        async with asyncio.timeout(PATIENCE):
            assert (await receipt).seq == 1
        await factory.log.stop()

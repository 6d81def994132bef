from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from catenary import (
    ConfigError,
    Position,
    PositionLost,
    Run,
    UsageError,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    get_websocket_bridge_factory,
    get_websocket_manager,
)
from catenary import (
    factory as factory_module,
)
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import Retention
from catenary.eventlog.signal import Signal
from catenary.fold import RunState, RunStatus


@pytest.fixture
def fresh_process() -> Any:
    """The state of a process in which nobody asked for the bridge yet."""
    before = factory_module._factory
    factory_module._factory = None
    yield
    factory_module._factory = before


def test_one_bridge_a_process_also_on_the_first_calls(fresh_process: None) -> None:
    """55 threads × 5 calls at once get one object."""
    barrier = threading.Barrier(55)
    found: list[Any] = []

    def ask() -> None:
        barrier.wait()
        found.extend(get_websocket_bridge_factory() for _ in range(5))
        found.append(get_websocket_manager())

    threads = [threading.Thread(target=ask) for _ in range(55)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 55 * 6
    assert len({id(one) for one in found}) == 2
    assert get_websocket_manager() is get_websocket_bridge_factory().manager


def test_options_come_with_the_first_call_only(fresh_process: None) -> None:
    """Later options would change nothing, so they are an error."""
    get_websocket_bridge_factory(run_drain_timeout=1)
    with pytest.raises(ConfigError, match="first call"):
        get_websocket_bridge_factory(run_drain_timeout=2)


def test_factories_with_one_url_share_a_log() -> None:
    """``?private`` does not."""
    url = "memory://"
    one, two = WebSocketBridgeFactory(log=url), WebSocketBridgeFactory(log=url)
    assert one.log is two.log
    assert WebSocketBridgeFactory(log="memory://?private").log is not one.log


@pytest.mark.parametrize("url", ["banana://x", ""])
def test_a_log_that_cannot_be_opened_is_a_clear_error(url: str) -> None:
    """The error names what can be used."""
    with pytest.raises(ConfigError, match="sqlite"):
        WebSocketBridgeFactory(log=url)


def test_a_user_id_is_no_context() -> None:
    """The error says what to call instead."""
    wrong: Any = "user_123"
    with pytest.raises(UsageError, match="create_user_emitter"):
        WebSocketBridgeFactory(log="memory://?private").get_user_emitter(wrong)


async def test_events_are_read_by_place_and_thread(factory: WebSocketBridgeFactory) -> None:
    """After a position, or of one thread."""
    for thread in ("t1", "t2", "t1"):
        emitter = await factory.create_user_emitter("user_123", thread_id=thread)
        place = await emitter.custom("app.note")
    assert [e.seq async for e in factory.events("user_123", thread_id="t1")] == [1, 3]
    after = Position(place.epoch, 1)
    assert [e.seq async for e in factory.events("user_123", after=after)] == [2, 3]


async def test_following_gives_what_comes(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Events emitted from a thread while one follows arrive in order."""
    threading.Thread(target=lambda: [emitter.custom("app.note") for _ in range(100)]).start()
    found: list[int] = []
    async with asyncio.timeout(5):
        async for event in factory.events("user_123", follow=True):
            found.append(event.seq)
            if len(found) == 100:
                break
    assert found == list(range(1, 101))


async def test_a_commit_between_reading_and_waiting_is_not_missed() -> None:
    """Whoever follows is woken also by what came just before it waits."""
    signal = Signal()
    signal.wake()
    async with asyncio.timeout(1):
        await signal.wait()
    signal.is_awake = False
    waiting = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    signal.wake()
    async with asyncio.timeout(1):
        await waiting


async def test_reading_beyond_retention_raises(factory: WebSocketBridgeFactory) -> None:
    """The error says where to go on, and going on there works."""
    small = WebSocketBridgeFactory(log=MemoryLog(retention=Retention(events=50)))
    emitter = small.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    for _ in range(200):
        place = await emitter.custom("app.note")
    with pytest.raises(PositionLost) as lost:
        _ = [e async for e in small.events("user_123", after=Position(place.epoch, 1))]
    rest = [e.seq async for e in small.events("user_123", after=lost.value.resumes_at)]
    assert rest[-1] == 200
    assert rest == list(range(rest[0], 201))


async def test_runs_are_folded(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """What was said, done and how it ended, per run and thread."""
    async with emitter.run(agent_name="researcher") as run:
        run.delta("Be")
        run.delta("cause")
    (state,) = await factory.runs("user_123")
    assert (state.run_id, state.status, state.text) == (
        run.run_id, RunStatus.COMPLETED, "Because",
    )  # fmt: skip
    assert await factory.runs("user_123", thread_id="other") == []


async def test_a_run_longer_than_retention_stays_folded() -> None:
    """The text that the log dropped is still in the run's state, open and ended."""
    log = MemoryLog(retention=Retention(events=50, open_events=50))
    async with WebSocketBridgeFactory(log=log) as small:
        emitter = small.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        async with emitter.run() as run:
            for number in range(500):
                run.delta(f"{number} ")
            assert run.state.text == "".join(f"{number} " for number in range(500))
        (state,) = await small.runs("user_123")
        assert state.text == "".join(f"{number} " for number in range(500))


async def test_the_resume_point_is_before_the_oldest_open_run(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Without an open run it is the head."""
    emitter.custom("app.note")
    assert (await factory.resume_point("user_123")).seq == 1
    async with emitter.run() as run:
        run.delta("x")
        assert (await factory.resume_point("user_123")).seq == 1
    assert (await factory.resume_point("user_123")).seq == 4


async def test_run_ends_are_reported_at_least_once(factory: WebSocketBridgeFactory) -> None:
    """Completed, failed and cancelled ones, folded; a handler that raises is called again."""
    reported: list[RunState] = []
    done = asyncio.Event()
    failures = [ValueError("not yet")]

    @factory.on_run_end
    async def keep(state: RunState) -> None:
        if failures:
            raise failures.pop()
        reported.append(state)
        if len(reported) == 3:
            done.set()

    async def answer(run: Run) -> None:
        run.delta("partial")

    async def fail(run: Run) -> None:
        run.delta("partial")
        raise ValueError

    async def wait(run: Run) -> None:
        run.delta("partial")
        await asyncio.sleep(60)

    emitter = await factory.create_user_emitter("user_123")
    emitter.start_run(answer)
    emitter.start_run(fail)
    waiting = emitter.start_run(wait)
    await asyncio.sleep(0.01)
    await waiting.cancel("enough")
    async with asyncio.timeout(10):
        await done.wait()
    assert {state.status for state in reported} == {
        RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED,
    }  # fmt: skip
    assert {state.text for state in reported} == {"partial"}


async def test_erasing_leaves_no_text_and_no_hole(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A thread's events become tombstones, and numbers stay dense; all goes with the user."""
    for thread in ("t1", "t2", "t1"):
        other = await factory.create_user_emitter("user_123", thread_id=thread)
        other.custom("app.note", {"secret": f"words of {thread}"})
    assert await factory.erase("user_123", "t1") == 2
    found = [event async for event in factory.events("user_123")]
    assert [event.type for event in found] == ["erased", "app.note", "erased"]
    assert "words of t1" not in str([event.data for event in found])
    await factory.erase("user_123")
    found = [event async for event in factory.events("user_123")]
    assert [(event.type, event.seq) for event in found] == [("erased", 4)]


async def test_starting_and_stopping_leaves_nothing_behind() -> None:
    """Twenty times: no task and no thread more than before."""
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    for _ in range(20):
        async with WebSocketBridgeFactory(log="memory://?private") as bridge:
            emitter = await bridge.create_user_emitter("user_123")
            await emitter.custom("app.note")
    assert len(asyncio.all_tasks()) == tasks
    assert threading.active_count() == threads

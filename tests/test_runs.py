from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest

from catenary import (
    LifecycleError,
    Run,
    RunCancelled,
    RunClosed,
    RunFailed,
    UsageError,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    WebSocketEvent,
    current_run,
)
from catenary.fold import RunStatus


async def events(factory: WebSocketBridgeFactory) -> list[WebSocketEvent]:
    return [event async for event in factory.events("user_123")]


async def types(factory: WebSocketBridgeFactory) -> list[str]:
    return [event.type for event in await events(factory)]


async def until(check: Any) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.001)


async def test_a_run_that_succeeds_completes(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Started, tool pair, delta, completed with the result; all name the run and the agent."""
    async with emitter.run(agent_name="researcher", task="why") as run:
        async with run.tool("search", {"q": "bridges"}) as tool:
            tool.set_result([1, 2])
        run.delta("Because")
        run.set_result({"answer": "Because"})
    found = await events(factory)
    assert [event.type for event in found] == [
        "agent_started", "tool_executing", "tool_completed", "agent_delta", "agent_completed",
    ]  # fmt: skip
    assert {(event.run_id, event.agent_name) for event in found} == {(run.run_id, "researcher")}
    assert found[-1].data["result"] == {"answer": "Because"}
    assert found[2].data["success"] is True
    assert found[1].data["tool_call_id"] == found[2].data["tool_call_id"]


async def test_a_run_that_raises_fails_without_telling_the_text(
    factory: WebSocketBridgeFactory,
    emitter: UserWebSocketEmitter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The user sees the class, the log has the rest; open tools are closed before the end."""
    with pytest.raises(ValueError, match="private"):
        async with emitter.run() as run, run.tool("search"):
            run.delta("so far")
            raise ValueError("private")
    found = await events(factory)
    assert [e.type for e in found][-2:] == ["tool_completed", "agent_error"]
    assert found[-2].data["success"] is False
    assert found[-1].data["message"] == "the agent failed: ValueError"
    assert "private" not in str([event.data for event in found])
    assert any(
        run.run_id in record.message for record in caplog.records if record.levelno >= logging.ERROR
    )


async def test_run_failed_is_shown_to_the_user(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """An agent chooses what the user reads by raising RunFailed."""
    with pytest.raises(RunFailed):
        async with emitter.run():
            raise RunFailed("the model is busy", code="busy", retryable=True)
    data = (await events(factory))[-1].data
    assert data == {"code": "busy", "message": "the model is busy", "retryable": True}


async def test_a_cancelled_task_cancels_its_run(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Cancelling the task ends the run as agent_cancelled, and the task stays cancelled."""
    begun = asyncio.Event()

    async def agent() -> None:
        async with emitter.run() as run, run.tool("wait"):
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(agent())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await types(factory))[-2:] == ["tool_completed", "agent_cancelled"]


async def test_a_cancel_request_interrupts_the_run_and_its_children(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """cancel_run reaches a task that hangs in a sub-agent; both runs end as cancelled."""
    runs: list[Run] = []

    async def agent() -> None:
        async with emitter.run() as run, run.child(agent_name="helper") as child:
            runs.extend([run, child])
            await asyncio.sleep(60)

    task = asyncio.create_task(agent())
    await until(lambda: runs)
    await emitter.cancel_run(runs[0].run_id, reason="enough")
    with pytest.raises(RunCancelled, match="enough"):
        await task
    ends = [event for event in await events(factory) if event.type == "agent_cancelled"]
    assert [event.run_id for event in ends] == [runs[1].run_id, runs[0].run_id]
    assert all(event.data["reason"] == "enough" for event in ends)
    assert ends[0].parent_run_id == runs[0].run_id


async def test_code_after_a_cancelled_run_goes_on(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Whoever catches RunCancelled has a task that can await again."""
    with pytest.raises(RunCancelled):
        async with emitter.run() as run:
            await emitter.cancel_run(run.run_id)
            await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_synchronous_run_is_cancelled_at_its_next_verb(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """In a thread RunCancelled, a BaseException, comes from the next verb."""
    runs: list[Run] = []
    go_on = threading.Event()

    def agent() -> str:
        try:
            with emitter.run() as run:
                runs.append(run)
                go_on.wait(5)
                try:
                    run.thinking("still here")
                except Exception:
                    return "swallowed"
        except RunCancelled:
            return "cancelled"
        return "completed"

    work = asyncio.create_task(asyncio.to_thread(agent))
    await until(lambda: runs)
    await emitter.cancel_run(runs[0].run_id)
    assert runs[0].cancelled
    go_on.set()
    assert await work == "cancelled"
    assert (await types(factory))[-1] == "agent_cancelled"


async def test_wait_cancelled_returns_when_a_cancel_is_asked(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A sub-task of the run may wait for the cancel itself."""
    with pytest.raises(RunCancelled):
        async with emitter.run() as run:
            waiting = asyncio.create_task(run.wait_cancelled())
            await asyncio.sleep(0)
            await emitter.cancel_run(run.run_id)
            await waiting
            run.raise_if_cancelled()


@pytest.mark.parametrize(
    ("options", "code"),
    [({"timeout": 0.02}, "timeout"), ({"idle_timeout": 0.02}, "idle_timeout")],
)
async def test_a_run_that_hangs_is_ended(
    factory: WebSocketBridgeFactory,
    emitter: UserWebSocketEmitter,
    options: dict[str, float],
    code: str,
) -> None:
    """A hanging await is interrupted, and the end says which limit it was."""
    with pytest.raises(TimeoutError):
        async with emitter.run(
            timeout=options.get("timeout"), idle_timeout=options.get("idle_timeout")
        ):
            await asyncio.sleep(60)
    data = (await events(factory))[-1].data
    assert (data["code"], data["retryable"]) == (code, True)


async def test_events_keep_an_idle_timeout_away(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A run that speaks is not idle, however long it takes."""
    async with emitter.run(idle_timeout=1.0) as run:
        for _ in range(6):
            await asyncio.sleep(0.2)
            run.delta("x")
    assert (await types(factory))[-1] == "agent_completed"


async def test_a_thread_that_hangs_has_its_run_ended_from_outside(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The end does not wait for the thread; what it says later is refused."""
    go_on = threading.Event()

    def agent() -> str:
        try:
            with emitter.run(timeout=0.02) as run:
                go_on.wait(5)
                run.delta("late")
        except TimeoutError:
            return "late"
        return "completed"

    work = asyncio.create_task(asyncio.to_thread(agent))
    async with asyncio.timeout(5):
        while "agent_error" not in await types(factory):
            await asyncio.sleep(0.005)
    go_on.set()
    assert await work == "late"
    assert (await types(factory)) == ["agent_started", "agent_error"]


async def test_a_run_whose_task_is_collected_is_closed(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A dropped coroutine inside a run ends it as producer_lost."""

    async def agent() -> None:
        async with emitter.run():
            await asyncio.get_running_loop().create_future()

    coroutine = agent()
    coroutine.send(None)
    coroutine.close()
    assert (await events(factory))[-1].data["code"] == "producer_lost"


async def test_a_run_that_is_dropped_open_is_closed(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Entering by hand and losing the object closes the run when it is collected."""
    run = emitter.run()
    await run.__aenter__()
    run.delta("half")
    del run
    gc.collect()
    found = await events(factory)
    assert found[-1].type == "agent_error"
    assert found[-1].data["code"] == "producer_lost"


async def test_completing_with_open_tools_is_an_error_and_still_ends(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The producer gets LifecycleError; the reader sees a whole run."""
    with pytest.raises(LifecycleError):
        async with emitter.run() as run:
            emitter.tool_executing("search", run_id=run.run_id)
    assert await types(factory) == [
        "agent_started", "tool_executing", "tool_completed", "agent_error",
    ]  # fmt: skip


async def test_current_run_follows_the_context(emitter: UserWebSocketEmitter) -> None:
    """Tools find the run in tasks and threads; outside there is none."""
    with pytest.raises(UsageError):
        current_run()
    async with emitter.run() as run:
        assert current_run() is run
        assert await asyncio.to_thread(current_run) is run
        async with run.child() as child:
            assert current_run() is child
        assert current_run() is run
    with pytest.raises(UsageError):
        current_run()


async def test_state_is_the_run_so_far(emitter: UserWebSocketEmitter) -> None:
    """Text and tools just emitted are in it."""
    async with emitter.run() as run:
        run.delta("Be")
        run.delta("cause")
        async with run.tool("search"):
            assert run.state.text == "Because"
            assert [tool.tool_name for tool in run.state.tools] == ["search"]
        assert run.state.status is RunStatus.RUNNING


async def test_takeover_joins_an_open_run_and_follows_an_ended_one(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """An open run goes on without a second start; an ended one is continued by a new run."""
    emitter.agent_started(run_id="job_1")
    async with emitter.run(run_id="job_1", takeover=True) as run:
        run.delta("again")
    assert await types(factory) == ["agent_started", "agent_delta", "agent_completed"]
    async with emitter.run(run_id="job_1", takeover=True) as run:
        assert run.run_id != "job_1"
    started = [event for event in await events(factory) if event.type == "agent_started"]
    assert started[-1].data["continues_run_id"] == "job_1"
    with pytest.raises(RunClosed):
        async with emitter.run(run_id="job_1"):
            pass


async def test_started_runs_are_supervised(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Coroutine functions run as tasks, plain ones in threads; what they return is the result."""

    async def answer(run: Run, question: str) -> str:
        run.delta(question)
        return "async"

    def count(run: Run, number: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        run.delta("1, 2")
        return number

    first = emitter.start_run(answer, "why?", agent_name="a")
    second = emitter.start_run(count, 7, agent_name="b")
    await asyncio.gather(first.wait(), second.wait())
    results = {
        event.run_id: event.data["result"]
        for event in await events(factory)
        if event.type == "agent_completed"
    }
    assert results == {first.run_id: "async", second.run_id: 7}


async def test_a_drain_gives_runs_their_time_and_ends_the_rest(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """Short runs complete; hanging ones end with shutdown, retryable; no new ones begin."""

    async def short(run: Run) -> None:
        await asyncio.sleep(0.05)

    async def hanging(run: Run) -> None:
        await asyncio.sleep(60)

    hangs = threading.Event()

    def hanging_thread(run: Run) -> None:
        hangs.wait(5)

    handles = [emitter.start_run(agent) for agent in (short, hanging, hanging_thread)]
    await asyncio.sleep(0.01)
    await factory.drain(0.3)
    hangs.set()
    ends = {
        event.run_id: event
        for event in await events(factory)
        if event.type in {"agent_completed", "agent_error", "agent_cancelled"}
    }
    assert ends[handles[0].run_id].type == "agent_completed"
    for handle in handles[1:]:
        assert ends[handle.run_id].data["code"] == "shutdown"
        assert ends[handle.run_id].data["retryable"] is True
    with pytest.raises(Exception, match="draining"):
        emitter.start_run(short)


# Runs whose life is no block of code


async def test_a_run_may_be_begun_and_ended(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Its end is that of a block that was left in the same way."""
    async with emitter.run() as parent:
        for error in (None, ValueError("private"), RunFailed("no more", code="gone")):
            child = parent.child()
            child.begin()
            child.delta("x")
            receipt = child.end(error)
            assert receipt is not None
            assert (await receipt).seq == child.state.last_seq
        assert child.end() is None
    states = [state for state in await factory.runs("user_123") if state.parent_run_id]
    assert [state.status for state in states] == ["completed", "failed", "failed"]
    assert [state.error.code for state in states if state.error] == ["agent_failed", "gone"]


async def test_a_cancel_of_a_begun_run_is_raised_by_its_next_verb(
    emitter: UserWebSocketEmitter,
) -> None:
    async with emitter.run() as parent:
        child = parent.child()
        child.begin()
        await emitter.cancel_run(child.run_id, reason="enough")
        with pytest.raises(RunCancelled):
            child.delta("x")
        child.end()
        assert (child.state.status, child.state.cancel_reason) == ("cancelled", "enough")


async def test_a_drain_ends_a_begun_run(factory: WebSocketBridgeFactory) -> None:
    """It has no task that could be given its time."""
    context = UserWebSocketContext(user_id="user_123")
    run = factory.get_user_emitter(context).run()
    run.begin()
    await factory.drain(0)
    assert run.state.error is not None
    assert run.state.error.code == "shutdown"
    assert run.end() is None

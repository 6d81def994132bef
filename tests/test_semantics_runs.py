from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from catenary import (
    Run,
    RunCancelled,
    RunClosed,
    UsageError,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    WebSocketEvent,
)
from catenary.errors import EventTooLarge, LogUnavailable
from catenary.eventlog.entry import Entry
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.stream import HeldRun, Stream
from catenary.interrupt import TaskInterrupt


async def events(factory: WebSocketBridgeFactory) -> list[WebSocketEvent]:
    return [event async for event in factory.events("user_123")]


async def last(factory: WebSocketBridgeFactory) -> WebSocketEvent:
    return (await events(factory))[-1]


async def test_a_result_that_is_too_large_ends_the_run_as_failed(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The producer is told, and the run does not stay open."""
    with pytest.raises(EventTooLarge):
        async with emitter.run() as run:
            run.set_result("x" * 300_000)
    assert not run.is_open
    assert (await last(factory)).data["code"] == "end_refused"


async def test_a_hook_that_fails_on_the_result_ends_the_run() -> None:
    """Whatever goes wrong with the end, there is one."""

    def broken(event: WebSocketEvent) -> WebSocketEvent:
        if event.type == "agent_completed":
            raise ZeroDivisionError
        return event

    factory = WebSocketBridgeFactory(log="memory://?private", redact=broken)
    emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    with pytest.raises(ZeroDivisionError):
        async with emitter.run() as run:
            pass
    assert run.held.on_cancel == []
    assert (await last(factory)).type == "agent_error"


async def test_a_lost_event_is_raised_at_the_end_and_the_run_ends(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A failure that nobody heard comes out of the block, after an end that says so."""
    failed = Receipt()
    failed.fail(LogUnavailable("the disk is gone"))
    with pytest.raises(LogUnavailable):
        async with emitter.run() as run:
            run.held.failure = failed
    assert not run.is_open
    assert (await last(factory)).type == "agent_error"


async def test_the_agents_error_is_not_hidden_by_a_lost_event(
    emitter: UserWebSocketEmitter,
) -> None:
    """What the block raised says more than what became of the events."""
    failed = Receipt()
    failed.fail(LogUnavailable("the disk is gone"))
    with pytest.raises(ValueError, match="mine"):
        async with emitter.run() as run, run.tool("t"):
            run.held.failure = failed
            raise ValueError("mine")


class AwayLog(MemoryLog):
    """A log whose commits of ends never come: what it accepts stays accepted."""

    def _accept(self, stream: Stream, entry: Entry, run: HeldRun | None) -> None:
        if not entry.type.startswith("agent_") or entry.type == "agent_started":
            super()._accept(stream, entry, run)


def away() -> UserWebSocketEmitter:
    factory = WebSocketBridgeFactory(log=AwayLog())
    return factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))


async def test_leaving_waits_only_so_long_for_a_log_that_is_away() -> None:
    """After flush_timeout the block is left with TimeoutError; the end stays accepted."""
    with pytest.raises(TimeoutError):
        async with away().run(flush_timeout=0.01) as run:
            pass
    assert not run.is_open


async def test_an_error_goes_on_though_the_log_is_away() -> None:
    """The timeout of the flush does not take its place."""
    with pytest.raises(ValueError, match="mine"):
        async with away().run(flush_timeout=0.01):
            raise ValueError("mine")


def test_an_error_goes_on_though_the_log_is_away_in_a_thread() -> None:
    """The same in a thread."""
    with pytest.raises(ValueError, match="mine"), away().run(flush_timeout=0.01):
        raise ValueError("mine")


async def test_a_cancel_during_the_flush_cancels_the_task() -> None:
    """The run has ended; the task stays cancelled."""
    inside: list[Run] = []

    async def agent() -> None:
        async with away().run() as run:
            inside.append(run)

    task = asyncio.create_task(agent())
    while not inside or inside[0].is_open:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_with_on_a_loops_thread_is_refused_before_anything_is_said(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Leaving it would block the loop."""
    with pytest.raises(UsageError, match="async with"), emitter.run():
        pass
    assert await events(factory) == []


# Cancels


async def test_a_cancel_that_the_agent_swallows_still_ends_the_run_as_cancelled(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Who asked was told that it would; the task goes on uncancelled."""
    async with emitter.run() as run:
        await emitter.cancel_run(run.run_id, reason="enough")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            run.set_result("anyway")
    assert (await last(factory)).type == "agent_cancelled"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_an_outer_cancel_is_not_lost_beside_a_cancel_of_the_run(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Both at once: the run is cancelled, and so is the task around it."""
    inside = asyncio.Event()

    async def agent() -> str:
        try:
            async with emitter.run(run_id="r1"):
                inside.set()
                await asyncio.sleep(60)
        except RunCancelled:
            return "went on"
        return "completed"

    for cancel_task_first in (False, True):
        inside.clear()
        emitter.stream.runs.pop("r1", None)
        task = asyncio.create_task(agent())
        await inside.wait()
        if cancel_task_first:
            task.cancel()
        await emitter.cancel_run("r1")
        if not cancel_task_first:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await last(factory)).type == "agent_cancelled"


async def test_a_timeout_around_a_run_is_a_timeout(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """asyncio.timeout outside: TimeoutError; the run is cancelled, as its task was."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), emitter.run():
            await asyncio.sleep(60)
    assert (await last(factory)).type == "agent_cancelled"


async def test_a_timeout_and_a_group_inside_a_run_are_their_own(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The run goes on after them; a cancel reaches tasks of a group inside."""
    ended: list[str] = []

    async def helper() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("helper")

    with pytest.raises(RunCancelled):
        async with emitter.run() as run:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(60)
            async with asyncio.TaskGroup() as group:
                group.create_task(helper())
                await asyncio.sleep(0)
                await emitter.cancel_run(run.run_id)
    assert ended == ["helper"]
    assert (await last(factory)).type == "agent_cancelled"
    async with asyncio.timeout(1):
        await asyncio.sleep(0)


async def test_a_child_of_a_cancelled_run_is_cancelled_as_it_begins(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A sub-agent made before the request and begun after it does not slip through."""
    async with emitter.run() as run:
        child = run.child()
        run.held.request_cancel(1, "enough", "user")
        with pytest.raises(RunCancelled, match="enough"):
            async with child:
                await asyncio.sleep(60)
    assert [e.type for e in await events(factory)][:3] == [
        "agent_started", "agent_started", "agent_cancelled",
    ]  # fmt: skip


async def test_one_run_from_many_threads(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """All that each thread said is there, in its order."""
    async with emitter.run() as run:

        def work(name: int) -> None:
            for number in range(100):
                run.delta(f"{number},", message_id=f"m{name}")

        await asyncio.gather(*(asyncio.to_thread(work, name) for name in range(8)))
    (state,) = await factory.runs("user_123")
    assert [m.text for m in state.messages] == ["".join(f"{n}," for n in range(100))] * 8


# Timeouts


async def test_a_task_that_ignores_its_timeout_has_its_run_ended(
    factory: WebSocketBridgeFactory,
    emitter: UserWebSocketEmitter,
) -> None:
    """What swallows its cancellation is ended from outside; its next verb is refused."""
    go_on = asyncio.Event()

    async def agent() -> None:
        async with emitter.run(timeout=0.01) as run:
            assert isinstance(run._interrupt, TaskInterrupt)
            run._interrupt.patience = 0.01
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    continue

    task = asyncio.create_task(agent())
    async with asyncio.timeout(5):
        while "agent_error" not in [event.type for event in await events(factory)]:
            await asyncio.sleep(0.005)
    go_on.set()
    with pytest.raises(TimeoutError):
        await task
    assert (await last(factory)).data["code"] == "timeout"


# Owners


async def test_the_former_holder_of_a_taken_over_run_does_not_close_it(
    emitter: UserWebSocketEmitter,
) -> None:
    """It was dropped; the one that took over goes on."""
    former = emitter.run(run_id="r1")
    await former.__aenter__()
    async with emitter.run(run_id="r1", takeover=True) as run:
        former._interrupt = None
        del former
        gc.collect()
        assert run.is_open
        run.delta("on")


# Started runs


async def test_a_run_can_be_cancelled_as_soon_as_it_is_started(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Whoever knows its id may cancel it, before its task had its first turn."""

    async def agent(run: Run) -> None:
        await asyncio.sleep(60)

    handle = emitter.start_run(agent)
    await handle.cancel("at once")
    await handle.wait()
    assert [e.type for e in await events(factory)] == ["agent_started", "agent_cancelled"]


async def test_a_refused_start_is_raised_where_the_run_is_started(
    emitter: UserWebSocketEmitter,
) -> None:
    """The caller learns that there is no run."""

    async def agent(run: Run) -> None: ...

    await emitter.start_run(agent, run_id="r1").wait()
    with pytest.raises(RunClosed):
        emitter.start_run(agent, run_id="r1")


async def test_a_drain_ends_also_what_waits_and_what_ignores_it(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A run that waits for a thread never begins; one that swallows its cancel is ended."""
    supervisor = factory.supervisor
    supervisor.threads, supervisor.ending_seconds = 1, 0.05
    busy, go_on, begun = threading.Event(), threading.Event(), list[str]()
    stubborn_ended = asyncio.Event()

    def thread(run: Run) -> None:
        begun.append(run.run_id)
        busy.set()
        go_on.wait(10)

    async def stubborn(run: Run) -> None:
        while not stubborn_ended.is_set():
            try:
                await stubborn_ended.wait()
            except asyncio.CancelledError:
                continue

    handles = [emitter.start_run(agent) for agent in (thread, thread, stubborn)]
    await asyncio.to_thread(busy.wait, 5)
    await factory.drain(timeout=0.02)
    go_on.set()
    stubborn_ended.set()
    for handle in handles:
        await handle.wait()
    ends: dict[str | None, Any] = {
        e.run_id: e.data["code"] for e in await events(factory) if e.type == "agent_error"
    }
    assert ends == {handle.run_id: "shutdown" for handle in handles}
    assert len(begun) == 1


async def test_a_drain_gives_time_to_every_run_of_the_bridge(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Also to those that the application began itself, in tasks and threads; the rest end."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    in_thread = threading.Event()

    async def short() -> None:
        async with emitter.run(run_id="short"):
            await go_on.wait()

    async def long() -> None:
        async with emitter.run(run_id="long"):
            begun.set()
            await asyncio.sleep(60)

    def thread() -> None:
        with pytest.raises(asyncio.CancelledError), emitter.run(run_id="thread") as run:
            in_thread.wait(5)
            run.delta("late")

    tasks = [asyncio.create_task(short()), asyncio.create_task(long())]
    working = asyncio.create_task(asyncio.to_thread(thread))
    await begun.wait()
    while not (run := emitter.stream.runs.get("thread")) or not run.is_open:
        await asyncio.sleep(0.001)
    draining = asyncio.create_task(factory.drain(timeout=0.2))
    await asyncio.sleep(0)
    go_on.set()
    await draining
    in_thread.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await working
    ends = {e.run_id: (e.type, e.data.get("code")) for e in await events(factory)}
    assert ends == {
        "short": ("agent_completed", None),
        "long": ("agent_error", "shutdown"),
        "thread": ("agent_error", "shutdown"),
    }

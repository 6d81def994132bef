"""What holds for every relay: the same script, played by each framework's own fake model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from catenary import (
    Run,
    UsageError,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    WebSocketEvent,
    current_run,
)
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.fold import RunState, RunStatus
from catenary.integrations.pace import AHEAD
from catenary.supervisor import RunHandle
from tests.eventlog.files import locked
from tests.integrations.frameworks import WAYS, Answer, Trait, Way, ways
from tests.integrations.frameworks.script import (
    Call,
    Fail,
    Hanging,
    Refused,
    Say,
    Script,
    Think,
    Wait,
)
from tests.integrations.shape import documented, is_input, said, shape_of, thought

PATIENCE = 10.0


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    """Each way from a framework into a log."""
    return WAYS[request.param]


@pytest.fixture
def answer(way: Way) -> Answer:
    """The way, where its framework is installed."""
    return way.load()


def only(trait: Trait) -> pytest.MarkDecorator:
    """The ways of the frameworks that can do something."""
    return pytest.mark.parametrize("way", ways(trait), indirect=True)


def call(id: str, name: str = "search", q: str = "bridges") -> Call:
    return Call(id, name, ('{"q": ', f'"{q}"}}'))


async def events(factory: WebSocketBridgeFactory) -> list[WebSocketEvent]:
    return [event async for event in factory.events("user_123")]


async def told(factory: WebSocketBridgeFactory, type: str) -> list[dict[str, Any]]:
    return [event.data for event in await events(factory) if event.type == type]


def named(way: Way, found: list[WebSocketEvent], script: Script) -> list[WebSocketEvent]:
    """Return events with the script's ids of calls also where a framework has ids of its own."""
    if Trait.NAMES_CALLS in way.traits:
        return found
    ids = {piece.name: piece.id for turn in script for piece in turn if isinstance(piece, Call)}
    return [
        replace(event, data={**event.data, "tool_call_id": ids[event.data["tool_name"]]})
        if "tool_call_id" in event.data
        else event
        for event in found
    ]


# The same shape


async def test_the_log_has_the_same_shape_whatever_the_framework(
    way: Way,
    answer: Answer,
    factory: WebSocketBridgeFactory,
    emitter: UserWebSocketEmitter,
) -> None:
    """It thinks, calls two tools at once, and answers: the events are those of the documents."""
    together = threading.Barrier(2)

    def search(q: str) -> str:
        """Search."""
        together.wait(PATIENCE)
        return f"found {q}"

    async def look_up(q: str) -> str:
        """Look up."""
        await asyncio.to_thread(together.wait, PATIENCE)
        return f"known {q}"

    script: Script = [
        [Think("I search "), Think("first."), call("call_1"), call("call_2", "look_up")],
        [Say("Two "), Say("bridges "), Say("fit.")],
    ]
    async with emitter.run(agent_name="researcher") as run:
        run.set_result(await answer(run, script, [search, look_up]))
    shape = shape_of(named(way, await events(factory), script))
    if Trait.REASONS in way.traits:
        tells = Trait.STREAMS_INPUTS in way.traits
        assert shape == [row for row in documented() if tells or not is_input(row)]
        assert run.state.text == "Two bridges fit."
        assert run.state.reasoning == "I search first."
    else:
        # What such a model thinks is text of the same message.
        assert [row for row in shape if row != said(1)] == [
            row for row in documented() if row != thought(1)
        ]


# Messages


@only(Trait.REASONS)
async def test_each_response_of_a_model_is_one_message(
    way: Way, answer: Answer, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Its reasoning, its text and the inputs of its calls have one id, and the next another."""

    async def search(q: str) -> str:
        """Search."""
        return q

    script: Script = [
        [Think("Hm. "), Say("I search. "), call("call_1")],
        [Think("So. "), Say("Two.")],
    ]
    async with emitter.run() as run:
        await answer(run, script, [search])
    messages: dict[str, list[str]] = {}
    for data in await told(factory, "agent_delta"):
        messages.setdefault(data["message_id"], []).append(data["part"])
    first, second = messages.values()
    inputs = {"tool_input"} if Trait.STREAMS_INPUTS in way.traits else set()
    assert set(first) == {"reasoning", "text"} | inputs
    assert set(second) == {"reasoning", "text"}


async def test_only_the_parts_that_are_asked_for_are_said(
    answer: Answer, emitter: UserWebSocketEmitter
) -> None:
    async def search(q: str) -> str:
        """Search."""
        return q

    script: Script = [[Think("Hm."), call("call_1")], [Say("Two.")]]
    async with emitter.run() as run:
        await answer(run, script, [search], parts={"text"})
    assert {message.part for message in run.state.messages} == {"text"}
    assert [tool.tool_input for tool in run.state.tools] == [{"q": "bridges"}]


async def test_a_part_that_is_none_is_refused(
    answer: Answer, emitter: UserWebSocketEmitter
) -> None:
    async with emitter.run() as run:
        with pytest.raises(UsageError, match="parts are some of text"):
            await answer(run, [[Say("Two.")]], parts={"pictures"})


@only(Trait.STREAMS_INPUTS)
async def test_secrets_in_streamed_inputs_do_not_reach_the_log(
    answer: Answer, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Neither whole nor in pieces."""

    async def sign_in(user: str, password: str) -> str:
        """Sign in."""
        return f"signed in with a password of {len(password)}"

    pieces = ('{"user": "a", "pass', 'word": "s3c', 'r3t"}')
    async with emitter.run() as run:
        await answer(run, [[Call("call_1", "sign_in", pieces)], [Say("Done.")]], [sign_in])
    assert run.state.tools[0].tool_output == "signed in with a password of 6"
    said = "".join(data["delta"] for data in await told(factory, "agent_delta"))
    assert '"user": "a"' in said
    assert "s3c" not in str([event.data for event in await events(factory)])


async def test_the_usage_of_all_responses_is_summed(
    answer: Answer, emitter: UserWebSocketEmitter
) -> None:
    """Over the responses of one relay, and over two relays of one run."""

    async def search(q: str) -> str:
        """Search."""
        return q

    script: Script = [[call("call_1")], [Say("Two.")]]
    async with emitter.run() as run:
        await answer(run, script, [search])
        await answer(run, script, [search])
    usage = run.state.usage
    assert usage["requests"] == 4
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] >= 4 * 10


# Tools


async def test_tools_speak_in_their_run_from_threads_and_tasks(
    answer: Answer, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A synchronous tool works in a thread of the framework's, and knows its run too."""
    threads = []

    def search(q: str) -> str:
        """Search."""
        threads.append(threading.current_thread())
        current_run().custom("app.searched", {"q": q})
        return q

    async def look_up(q: str) -> str:
        """Look up."""
        current_run().custom("app.looked_up", {"q": q})
        return q

    script: Script = [[call("call_1"), call("call_2", "look_up")], [Say("Two.")]]
    async with emitter.run() as run:
        await answer(run, script, [search, look_up])
    assert threads[0] is not threading.current_thread()
    found = [event for event in await events(factory) if event.type.startswith("app.")]
    assert {event.type for event in found} == {"app.searched", "app.looked_up"}
    assert {event.run_id for event in found} == {run.run_id}


async def test_a_tool_that_fails_ends_as_failed_and_the_run_goes_on(
    way: Way, answer: Answer, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The model is told what went wrong; the user is not, for it may be private."""

    async def search(q: str) -> str:
        """Search."""
        raise Refused("private")

    script: Script = [[call("call_1")], [Say("None.")]]
    async with emitter.run() as run:
        assert await answer(run, script, [search]) == "None."
    found = named(way, await events(factory), script)
    (ended,) = [event.data for event in found if event.type == "tool_completed"]
    assert (ended["tool_call_id"], ended["success"]) == ("call_1", False)
    assert ended["error"]
    assert "private" not in str(ended)
    assert run.state.status is RunStatus.COMPLETED


@only(Trait.RAISES)
async def test_a_tool_that_raises_ends_with_its_run(
    answer: Answer,
    factory: WebSocketBridgeFactory,
    emitter: UserWebSocketEmitter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exception that the framework lets through ends the run as agent_error, tools first."""

    async def search(q: str) -> str:
        """Search."""
        raise KeyError("private")

    async def run_it() -> None:
        async with emitter.run() as run:
            await answer(run, [[Say("I search."), call("call_1")], [Say("-")]], [search])

    with pytest.raises(Exception, match="private"):
        await run_it()
    found = await events(factory)
    assert [event.type for event in found][-2:] == ["tool_completed", "agent_error"]
    assert found[-2].data["success"] is False
    assert "private" not in str([event.data for event in found])


async def test_a_relay_that_is_left_leaves_no_tool_open(
    answer: Answer, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """An agent that catches what a framework raised may go on, and complete."""
    hanging = Hanging()

    async def search(q: str) -> str:
        """Search."""
        await hanging.forever()
        return q

    async with emitter.run() as run:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2) as limit:
                asking = asyncio.create_task(hanging.has_begun.wait())
                asking.add_done_callback(lambda _: limit.reschedule(0))
                await answer(run, [[call("call_1")]], [search])
        assert not run.held.grammar.open_tools
        await answer(run, [[Say("None.")]])
    (ended,) = await told(factory, "tool_completed")
    assert (ended["success"], ended["error"]) == (False, "it was cancelled")
    assert run.state.status is RunStatus.COMPLETED


# Failing and cancelling


async def test_a_model_that_raises_fails_the_run(
    answer: Answer,
    emitter: UserWebSocketEmitter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it said so far stays."""
    runs: list[Run] = []

    async def run_it() -> None:
        async with emitter.run() as run:
            runs.append(run)
            said = Wait(lambda: until(lambda: run.state.text == "Two "))
            await answer(run, [[Say("Two "), said, Fail(ValueError("no more"))]])

    with pytest.raises(Exception, match="no more"):
        await run_it()
    state = runs[0].state
    assert (state.status, state.text) == (RunStatus.FAILED, "Two ")
    assert state.error is not None
    assert state.error.code == "agent_failed"


@only(Trait.STOPS)
async def test_a_cancel_stops_the_model(answer: Answer, emitter: UserWebSocketEmitter) -> None:
    """The framework's own stream is closed at once; what was said stays."""
    hanging = Hanging()
    handle = emitter.start_run(answer, [[Say("Two "), hanging.piece, Say("-")]])
    async with asyncio.timeout(PATIENCE):
        await hanging.has_begun.wait()
        await until(lambda: state_of(emitter, handle).text == "Two ")
        began = asyncio.get_running_loop().time()
        await emitter.cancel_run(handle.run_id, reason="enough")
        await handle.wait()
        await hanging.was_stopped.wait()
    assert asyncio.get_running_loop().time() - began < 2
    state = state_of(emitter, handle)
    assert (state.status, state.text) == (RunStatus.CANCELLED, "Two ")
    assert state.cancel_reason == "enough"


@only(Trait.STOPS)
async def test_a_cancel_stops_a_tool(
    answer: Answer, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """It is cancelled as a task is, and ends as failed before its run."""
    hanging = Hanging()

    async def search(q: str) -> str:
        """Search."""
        await hanging.forever()
        return q

    handle = emitter.start_run(answer, [[call("call_1")], [Say("-")]], [search])
    async with asyncio.timeout(PATIENCE):
        await hanging.has_begun.wait()
        await until(lambda: len(state_of(emitter, handle).tools) == 1)
        await emitter.cancel_run(handle.run_id)
        await handle.wait()
        await hanging.was_stopped.wait()
    found = await events(factory)
    assert [event.type for event in found][-2:] == ["tool_completed", "agent_cancelled"]
    assert found[-2].data["success"] is False


def state_of(emitter: UserWebSocketEmitter, handle: RunHandle) -> RunState:
    return emitter.log.folded(emitter.stream, emitter.stream.runs[handle.run_id])


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():
            await asyncio.sleep(0.005)


# Sub-agents


@pytest.mark.parametrize("way", [name for name in WAYS if name[:4] != "lang"], indirect=True)
async def test_an_agent_that_a_tool_asks_has_a_run_of_its_own(
    answer: Answer, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A relay inside a tool, within ``current_run().child(…)``."""

    async def ask_expert(q: str) -> str:
        """Ask an expert."""
        async with current_run().child(agent_name="expert") as child:
            child.set_result(await answer(child, [[Say("I know.")]]))
        return str(child.state.result)

    async with emitter.run(agent_name="boss") as run:
        await answer(run, [[call("call_1", "ask_expert")], [Say("Two.")]], [ask_expert])
    (expert,) = [state for state in await factory.runs("user_123") if state.run_id != run.run_id]
    assert (expert.agent_name, expert.parent_run_id) == ("expert", run.run_id)
    assert (expert.text, expert.status) == ("I know.", RunStatus.COMPLETED)
    assert (run.state.text, run.state.tools[0].tool_output) == ("Two.", "I know.")


# The pace of the log


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[WebSocketBridgeFactory]:
    """A bridge over a file, with room for a few hundred events that are not committed."""
    log = SqliteLog(tmp_path / "events.db", log_intake_bytes=40_000, log_reserve_bytes=8_000)
    async with WebSocketBridgeFactory(log=log, run_drain_timeout=0.5) as bridge:
        yield bridge


async def test_a_relay_waits_for_a_log_that_is_full(
    answer: Answer, small: WebSocketBridgeFactory, tmp_path: Path
) -> None:
    """While nothing commits it stands still; afterwards all is there, once and in order."""
    emitter = small.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    words = [f"{number:06d} " for number in range(3 * AHEAD)]
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def gate() -> None:
        begun.set()
        await go_on.wait()

    script: Script = [[Say("-"), Wait(gate), *(Say(word) for word in words)]]
    handle = emitter.start_run(answer, script)
    log = emitter.log
    assert isinstance(log, SqliteLog)
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        await emitter.flush()
        with locked(tmp_path / "events.db"):
            go_on.set()
            while log.problem() is None:
                await asyncio.sleep(0.01)
            accepted = await standing_still(emitter)
            assert not handle.is_done
            assert accepted <= 40_000
        await handle.wait()
    state = state_of(emitter, handle)
    assert state.status is RunStatus.COMPLETED
    assert state.text == "-" + "".join(words)


async def standing_still(emitter: UserWebSocketEmitter) -> int:
    """Wait until the intake has not grown for a while; return how many bytes it holds."""
    log = emitter.log
    assert isinstance(log, SqliteLog)
    for _ in range(200):
        before = log._intake_bytes
        await asyncio.sleep(0.2)
        if before and log._intake_bytes == before:
            return before
    pytest.fail("the relay never stood still")


async def test_a_relay_that_waits_for_the_log_can_be_cancelled(
    answer: Answer, small: WebSocketBridgeFactory, tmp_path: Path
) -> None:
    """The model is stopped though not one more event fits."""
    emitter = small.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    hanging = Hanging()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def gate() -> None:
        begun.set()
        await go_on.wait()

    words = [Say(f"{number:06d} ") for number in range(3 * AHEAD)]
    script: Script = [[Say("-"), Wait(gate), *words, hanging.piece]]
    task = asyncio.create_task(run_with(emitter, answer, script))
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        await emitter.flush()
        with locked(tmp_path / "events.db"):
            go_on.set()
            await standing_still(emitter)
            task.cancel()
            if hanging.has_begun.is_set():
                await hanging.was_stopped.wait()
        with pytest.raises(asyncio.CancelledError):
            await task
    (state,) = await small.runs("user_123")
    assert state.status is RunStatus.CANCELLED


async def run_with(emitter: UserWebSocketEmitter, answer: Answer, script: Script) -> None:
    async with emitter.run() as run:
        await answer(run, script)

"""What is particular to CrewAI: a hook that it does not export, crews of several agents, work in threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("crewai", reason="crewai is not installed")

from crewai import Crew, Process
from crewai.events import LLMStreamChunkEvent, crewai_event_bus
from crewai.events.stream_context import add_stream_sink
from crewai.tools import ToolFailure

from catenary import (
    Run,
    RunClosed,
    UsageError,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
)
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.fold import RunState, RunStatus
from catenary.integrations.crewai import relay
from catenary.integrations.pace import AHEAD
from tests.eventlog.files import locked
from tests.integrations.frameworks.crews import ScriptedLLM, agent, answer, crew, task
from tests.integrations.frameworks.script import Call, Fail, Hanging, Say, Script, Think, Wait
from tests.integrations.test_relays import standing_still

PATIENCE = 10.0


def search(q: str) -> str:
    """Search."""
    return f"found {q}"


def call(id: str, name: str, **given: str) -> Call:
    pairs = ", ".join(f'"{key}": "{value}"' for key, value in given.items())
    return Call(id, name, (f"{{{pairs}}}",))


async def children(factory: WebSocketBridgeFactory, run: Run) -> list[RunState]:
    return [state for state in await factory.runs("user_123") if state.run_id != run.run_id]


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():
            await asyncio.sleep(0.005)


def at_work() -> set[threading.Thread]:
    """The threads in which crews work."""
    return {thread for thread in threading.enumerate() if thread.name == "catenary crewai"}


# The hook


def test_the_hook_hears_events_where_they_happen_and_may_stop_what_happens() -> None:
    """CrewAI does not export it; a version without it must fail here, not at a user's."""
    heard: list[tuple[str, threading.Thread]] = []

    def hear(source: object, event: Any) -> None:
        heard.append((event.chunk, threading.current_thread()))
        if event.chunk == "stop":
            raise KeyError(event.chunk)

    def emit(chunk: str) -> None:
        crewai_event_bus.emit(None, LLMStreamChunkEvent(chunk=chunk, call_id="c"))

    def listen() -> None:
        add_stream_sink(hear)
        emit("one")
        emit("two")
        with pytest.raises(KeyError):
            emit("stop")

    contextvars.copy_context().run(listen)
    emit("elsewhere")
    assert [chunk for chunk, _ in heard] == ["one", "two", "stop"]
    assert {thread for _, thread in heard} == {threading.current_thread()}


# Agents and tasks


async def test_the_last_task_speaks_in_the_run_and_those_before_it_in_sub_runs(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """Each with its own words, tools and reasoning; the output is the last one's."""
    first = agent(
        [[Think("Hm."), call("call_1", "search", q="bridges")], [Say("Two "), Say("found.")]],
        [search],
        role="researcher\n",
    )
    last = agent([[Say("Two "), Say("bridges.")]], role="writer")
    async with emitter.run(agent_name="writer") as run:
        output = await relay(crew(first, last), run)
    assert output.raw == run.state.text == "Two bridges."
    (state,) = await children(factory, run)
    assert (state.agent_name, state.parent_run_id) == ("researcher", run.run_id)
    assert (state.text, state.reasoning) == ("Two found.", "Hm.")
    assert [tool.tool_output for tool in state.tools] == ["found bridges"]
    assert state.status is RunStatus.COMPLETED
    assert not run.state.tools
    assert run.state.usage["requests"] == 3


async def test_a_sub_run_ends_when_its_agent_has_done_its_task(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """Not with the crew."""
    async with emitter.run() as run:
        await relay(crew(agent([[Say("One.")]]), agent([[Say("Two.")]])), run)
    found = [event async for event in factory.events("user_123")]
    (child,) = await children(factory, run)
    order = [(event.type, event.run_id == run.run_id) for event in found]
    assert order.index(("agent_completed", False)) < order.index(("agent_delta", True))
    assert child.status is RunStatus.COMPLETED


async def test_tasks_at_the_same_time_have_runs_of_their_own(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """Their words are not mixed."""
    gates = [asyncio.Event(), asyncio.Event()]

    async def meet(number: int) -> None:
        gates[number].set()
        await gates[1 - number].wait()

    both = [
        agent([[Say("I "), Wait(lambda n=n: meet(n)), Say(f"am {n}.")]], role=f"agent {n}")  # type: ignore[misc]
        for n in (0, 1)
    ]
    writer = agent([[Say("Two.")]], role="writer")
    tasks = [*(task(of, async_execution=True) for of in both), task(writer)]
    async with emitter.run() as run:
        await relay(Crew(agents=[*both, writer], tasks=tasks), run)
    texts = {state.agent_name: state.text for state in await children(factory, run)}
    assert texts == {"agent 0": "I am 0.", "agent 1": "I am 1."}
    assert run.state.text == "Two."


async def test_what_a_manager_delegates_is_a_tool_call_and_a_sub_run(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """The manager speaks in the run, and its coworker in a sub-run while the call is open."""
    asked = call(
        "call_1", "delegate_work_to_coworker", task="Find.", context="-", coworker="expert"
    )
    manager = agent([[asked], [Say("Two.")]], role="manager")
    expert = agent([[Say("I know.")]], role="expert")
    work = task(expert)
    boss = Crew(agents=[expert], tasks=[work], manager_agent=manager, process=Process.hierarchical)
    async with emitter.run() as run:
        await relay(boss, run)
    (state,) = await children(factory, run)
    assert (state.agent_name, state.text, state.parent_run_id) == ("expert", "I know.", run.run_id)
    (tool,) = run.state.tools
    assert (tool.tool_name, tool.tool_output) == ("delegate_work_to_coworker", "I know.")
    assert run.state.text == "Two."


async def test_a_crew_that_a_tool_lets_work_has_sub_runs(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """Also where the tool relays nothing."""
    inner = crew(agent([[Say("I know.")]], role="expert"))

    def ask(q: str) -> str:
        """Ask."""
        return str(inner.kickoff())

    outer = crew(agent([[call("call_1", "ask", q="-")], [Say("Two.")]], [ask]))
    async with emitter.run() as run:
        await relay(outer, run)
    (state,) = await children(factory, run)
    assert (state.agent_name, state.text, state.parent_run_id) == ("expert", "I know.", run.run_id)
    assert run.state.text == "Two."


# Messages


async def test_messages_that_come_whole_are_said(emitter: UserWebSocketEmitter) -> None:
    """Without ``stream=True``; once."""
    asked = agent([[call("call_1", "search", q="a")], [Say("Two.")]], [search], stream=False)
    async with emitter.run() as run:
        await relay(crew(asked), run)
    assert [message.text for message in run.state.messages] == ["Two."]


async def test_a_model_that_no_agent_asks_is_counted_and_not_said(
    emitter: UserWebSocketEmitter,
) -> None:
    """It works for a tool, or for CrewAI itself."""
    loop = asyncio.get_running_loop()

    def sum_up(q: str) -> str:
        """Sum up."""
        return str(ScriptedLLM([[Say("In short.")]], loop).call(q))

    asked = agent([[call("call_1", "sum_up", q="-")], [Say("Two.")]], [sum_up])
    async with emitter.run() as run:
        await relay(crew(asked), run)
    assert [tool.tool_output for tool in run.state.tools] == ["In short."]
    assert (run.state.text, run.state.usage["requests"]) == ("Two.", 3)


async def test_the_inputs_of_a_crew_are_passed_on(emitter: UserWebSocketEmitter) -> None:
    asked = agent([[Say("Two.")]])
    work = task(asked)
    work.description = "Which bridges in {place}?"
    async with emitter.run() as run:
        output = await relay(Crew(agents=[asked], tasks=[work]), run, inputs={"place": "Bern"})
    assert output.tasks_output[0].description == "Which bridges in Bern?"


async def test_a_crew_that_streams_by_itself_is_refused(emitter: UserWebSocketEmitter) -> None:
    """It would return before it works."""
    async with emitter.run() as run:
        with pytest.raises(UsageError, match="without stream=True"):
            await relay(crew(agent([[Say("-")]]), stream=True), run)


# Tools


async def test_calls_of_one_tool_at_the_same_time_end_with_their_own_results(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """Whichever ends first. Their ids are the same in both events, and CrewAI's own."""
    second_has_ended = threading.Event()

    def look(q: str) -> str:
        """Look."""
        if q == "first":
            second_has_ended.wait(PATIENCE)
            raise ValueError(q)
        second_has_ended.set()
        return f"found {q}"

    calls = [call(f"call_{q}", "look", q=q) for q in ("first", "second")]
    async with emitter.run() as run:
        await relay(crew(agent([calls, [Say("Two.")]], [look])), run)
    found = [event async for event in factory.events("user_123")]
    begun = {event.data["tool_call_id"] for event in found if event.type == "tool_executing"}
    assert begun == {tool.tool_call_id for tool in run.state.tools}
    results = {tool.tool_input["q"]: (tool.tool_output, tool.error) for tool in run.state.tools}
    assert results == {"first": (None, "ValueError"), "second": ("found second", None)}


async def test_a_tool_that_says_that_it_failed_has_failed(emitter: UserWebSocketEmitter) -> None:
    """It returns a ``ToolFailure``, and raises nothing."""

    def refuse(q: str) -> Any:
        """Refuse."""
        return ToolFailure(message="private")

    asked = agent([[call("call_1", "refuse", q="-")], [Say("None.")]], [refuse])
    async with emitter.run() as run:
        await relay(crew(asked), run)
    (tool,) = run.state.tools
    assert (tool.tool_output, tool.error) == (None, "the tool failed")
    assert run.state.status is RunStatus.COMPLETED


async def test_an_agent_that_writes_its_calls_as_text_calls_tools(
    emitter: UserWebSocketEmitter,
) -> None:
    """Its model knows no calls: CrewAI reads them from what it says, which is said as it is."""

    class WritingLLM(ScriptedLLM):
        def supports_function_calling(self) -> bool:
            return False

    turns: Script = [
        [Say("Thought: I search.\nAction: search\n"), Say('Action Input: {"q": "bridges"}\n')],
        [Say("Thought: I know.\nFinal Answer: Two.")],
    ]
    asked = agent([], [search])
    asked.llm = WritingLLM(turns, asyncio.get_running_loop())
    async with emitter.run() as run:
        assert (await relay(crew(asked), run)).raw == "Two."
    (tool,) = run.state.tools
    assert (tool.tool_name, tool.tool_input) == ("search", {"q": "bridges"})
    assert tool.tool_output == "found bridges"
    assert run.state.text.endswith("Final Answer: Two.")


# Failing and cancelling


async def test_an_agent_that_fails_ends_its_sub_run_as_failed(
    emitter: UserWebSocketEmitter,
    factory: WebSocketBridgeFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before its crew does."""
    failing = agent([[Say("Two "), Fail(ValueError("private"))]], role="researcher")
    runs: list[Run] = []

    async def run_it() -> None:
        async with emitter.run() as run:
            runs.append(run)
            await relay(crew(failing, agent([[Say("-")]])), run)

    with pytest.raises(ValueError, match="private"):
        await run_it()
    (state,) = await children(factory, runs[0])
    assert (state.status, state.text) == (RunStatus.FAILED, "Two ")
    assert runs[0].state.status is RunStatus.FAILED
    found = [event async for event in factory.events("user_123")]
    assert "private" not in str([event.data for event in found])


async def test_a_crew_stops_where_the_log_takes_no_more(emitter: UserWebSocketEmitter) -> None:
    """What the log says of it comes through, not what CrewAI makes of it; no model is asked any more."""
    runs: list[Run] = []
    asked: list[str] = []

    async def end() -> None:
        runs[0].emitter.agent_completed(run_id=runs[0].run_id)

    async def ask() -> None:
        asked.append("-")

    last = agent([[Say("Two "), Wait(end), call("call_1", "search", q="-")], [Wait(ask)]], [search])

    async def run_it() -> None:
        async with emitter.run() as run:
            runs.append(run)
            await relay(crew(last), run)

    with pytest.raises(RunClosed):
        await run_it()
    assert not asked


async def test_a_cancel_ends_the_run_at_once_and_the_crew_where_it_tells_something_next(
    emitter: UserWebSocketEmitter,
) -> None:
    """A tool at work ends by itself, and no model is asked any more; no thread is left."""
    release, calls = threading.Event(), []

    def wait(q: str) -> str:
        """Wait."""
        calls.append(q)
        release.wait(PATIENCE)
        return q

    async def ask_again() -> None:
        calls.append("again")

    script: Script = [[call("call_1", "wait", q="once")], [Wait(ask_again), Say("-")]]
    before = at_work()
    handle = emitter.start_run(answer, script, [wait])
    await until(lambda: bool(calls))
    await emitter.cancel_run(handle.run_id)
    async with asyncio.timeout(PATIENCE):
        await handle.wait()
    assert not release.is_set()
    release.set()
    await until(lambda: not at_work() - before)
    state = emitter.log.folded(emitter.stream, emitter.stream.runs[handle.run_id])
    assert state.status is RunStatus.CANCELLED
    assert [tool.error for tool in state.tools] == ["it was cancelled"]
    assert calls == ["once"]


async def test_a_relay_that_is_left_frees_the_thread_that_waits_for_the_log(tmp_path: Path) -> None:
    """At once, though the log takes nothing; and nothing more of it comes when the log does."""
    before = at_work()
    words = [Say(f"{number:06d} ") for number in range(3 * AHEAD)]
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def gate() -> None:
        begun.set()
        await go_on.wait()

    log = SqliteLog(tmp_path / "events.db", log_intake_bytes=40_000, log_reserve_bytes=8_000)
    async with WebSocketBridgeFactory(log=log) as bridge, asyncio.timeout(PATIENCE):
        emitter = bridge.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        async with emitter.run() as run:
            relaying = asyncio.create_task(answer(run, [[Say("-"), Wait(gate), *words]]))
            await begun.wait()
            await emitter.flush()
            with locked(tmp_path / "events.db"):
                go_on.set()
                await standing_still(emitter)
                relaying.cancel()
                await asyncio.wait((relaying,))
                said = run.state.text
                await until(lambda: not at_work() - before)
            await emitter.flush()
        assert run.state.text == said
    assert said.startswith("-000000 ")


async def test_a_cancel_of_a_sub_run_stops_the_crew(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """It can only be stopped as a whole."""
    hanging = Hanging()
    first = agent([[Say("Two "), hanging.piece]], role="researcher")

    async def work(run: Run) -> None:
        await relay(crew(first, agent([[Say("-")]])), run)

    handle = emitter.start_run(work)
    async with asyncio.timeout(PATIENCE):
        await hanging.has_begun.wait()
        (child,) = [r for r in await factory.runs("user_123") if r.run_id != handle.run_id]
        await emitter.cancel_run(child.run_id)
        await handle.wait()
    states = {state.run_id: state.status for state in await factory.runs("user_123")}
    assert states == {handle.run_id: RunStatus.CANCELLED, child.run_id: RunStatus.CANCELLED}


async def test_what_a_tool_left_behind_goes_on_and_is_not_told(
    emitter: UserWebSocketEmitter, factory: WebSocketBridgeFactory
) -> None:
    """A crew in a thread of the tool's own, when the relay has returned."""
    inner, has_returned = crew(agent([[Say("I know.")]])), threading.Event()
    threads: list[threading.Thread] = []
    outputs: list[str] = []

    def work() -> None:
        has_returned.wait(PATIENCE)
        outputs.append(str(inner.kickoff()))

    def begin(q: str) -> str:
        """Begin."""
        threads.append(threading.Thread(target=contextvars.copy_context().run, args=(work,)))
        threads[0].start()
        return q

    outer = crew(agent([[call("call_1", "begin", q="-")], [Say("Two.")]], [begin]))
    async with emitter.run() as run:
        await relay(outer, run)
        has_returned.set()
        await asyncio.to_thread(threads[0].join, PATIENCE)
    assert outputs == ["I know."]
    assert (run.state.text, await children(factory, run)) == ("Two.", [])


async def test_the_loop_goes_on_while_a_crew_works(emitter: UserWebSocketEmitter) -> None:
    """A tool that blocks its thread blocks nothing else."""
    go_on, turns = threading.Event(), 0

    def wait(q: str) -> str:
        """Wait."""
        go_on.wait(PATIENCE)
        return q

    handle = emitter.start_run(answer, [[call("call_1", "wait", q="-")], [Say("Two.")]], [wait])
    async with asyncio.timeout(PATIENCE):
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        go_on.set()
        await handle.wait()
    state = emitter.log.folded(emitter.stream, emitter.stream.runs[handle.run_id])
    assert (state.status, state.text) == (RunStatus.COMPLETED, "Two.")


async def test_a_crew_that_works_on_the_loop_is_told_what_to_do(
    emitter: UserWebSocketEmitter,
) -> None:
    """It would wait for the loop, on the loop."""

    async def ask(q: str) -> str:
        """Ask."""
        inner = crew(agent([[Say("-")]]))
        with pytest.raises(UsageError, match="a crew works in a thread"):
            await inner.akickoff()
        return "refused"

    outer = crew(agent([[call("call_1", "ask", q="-")], [Say("Two.")]], [ask]))
    async with emitter.run() as run:
        await relay(outer, run)
    assert [tool.tool_output for tool in run.state.tools] == ["refused"]

"""What every integration builds on: a relay, told things by hand."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from catenary import (
    Run,
    RunCancelled,
    RunFailed,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
)
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.fold import RunStatus
from catenary.integrations.pace import AHEAD, Pace
from catenary.integrations.relay import PIECE_CHARACTERS, Part, Relay, failure, fitting, parsed
from catenary.integrations.usage import Usage
from tests.eventlog.files import locked

# Tools


async def test_a_tool_is_told_of_once(emitter: UserWebSocketEmitter) -> None:
    """However often a framework begins or ends it."""
    async with emitter.run() as run, Relay(run) as to:
        for _ in range(2):
            await to.begin_tool("search", {"q": 1}, tool_call_id="call_1")
        for output in ("first", "second"):
            await to.end_tool("call_1", output)
        await to.begin_tool("search", {"q": 1}, tool_call_id="call_1")
    assert [tool.tool_output for tool in run.state.tools] == ["first"]


async def test_a_tool_that_was_never_told_of_begins_with_its_end(
    emitter: UserWebSocketEmitter,
) -> None:
    async with emitter.run() as run, Relay(run) as to:
        await to.end_tool("call_1", "found", name="search", tool_input={"q": 1})
    (tool,) = run.state.tools
    assert (tool.tool_name, tool.tool_input, tool.tool_output) == ("search", {"q": 1}, "found")


async def test_what_is_open_when_a_relay_is_left_is_ended(emitter: UserWebSocketEmitter) -> None:
    """Tools as failed, with the reason; sub-runs as their framework's run."""
    async with emitter.run() as run:
        async with Relay(run) as to:
            await to.begin_tool("search", {}, tool_call_id="call_1")
            await to.child("key", "expert")
        assert [tool.error for tool in run.state.tools] == ["it did not end"]
        with pytest.raises(RunFailed):
            async with Relay(run) as to:
                await to.begin_tool("search", {}, tool_call_id="call_2")
                raise RunFailed("The shop is closed.")
    assert run.state.tools[1].error == "The shop is closed."
    assert run.state.status is RunStatus.COMPLETED


async def test_inputs_that_no_event_holds_are_named_by_their_size(
    emitter: UserWebSocketEmitter,
) -> None:
    """A tool that writes a large file does not end its agent."""
    async with emitter.run() as run, Relay(run) as to:
        await to.begin_tool("write", {"text": "x" * 300_000}, tool_call_id="call_1")
        await to.end_tool("call_1", "written")
    (tool,) = run.state.tools
    assert tool.tool_input["too_large_bytes"] > 300_000
    assert tool.tool_output == "written"


async def test_long_texts_are_said_in_pieces(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A framework may bring a message whole, of any length."""
    text = "é\x00" * PIECE_CHARACTERS * 4
    async with emitter.run() as run, Relay(run) as to:
        await to.say(text, message_id="m")
        await to.say_input(f'"{text[:100]}"', message_id="m", tool_call_id="call_1")
        assert run.state.text == text
        assert run.state.messages[1].part == Part.TOOL_INPUT


async def test_ids_that_no_log_holds_are_replaced(emitter: UserWebSocketEmitter) -> None:
    """Some providers put signatures into the ids of calls; begin and end still meet."""
    long, odd = "call_1" + "s" * 1000, "call\n2"
    async with emitter.run() as run, Relay(run) as to:
        for call in (long, odd, "call_3"):
            await to.begin_tool("search", {}, tool_call_id=call)
            await to.end_tool(call, call)
        await to.say("x", message_id=long)
    ids = [tool.tool_call_id for tool in run.state.tools]
    assert ids == [fitting(long), fitting(odd), "call_3"]
    assert [tool.tool_output for tool in run.state.tools] == [long, odd, "call_3"]


def test_a_failure_names_what_the_user_may_read() -> None:
    assert failure(KeyError("private")) == "KeyError"
    assert failure(RunFailed("The shop is closed.")) == "The shop is closed."
    assert failure("private") == failure() == "the tool failed"
    assert failure(asyncio.CancelledError()) == "it was cancelled"


def test_arguments_are_read_where_they_are_json() -> None:
    assert parsed('{"q": 1}') == {"q": 1}
    assert parsed('{"q": ') == '{"q": '
    assert parsed("") == {}
    assert parsed({"q": 1}) == {"q": 1}


# Sub-runs


async def test_a_sub_run_ends_with_what_it_left_open(emitter: UserWebSocketEmitter) -> None:
    """And leaves the tools of others alone; one that never began is none."""
    async with emitter.run() as run, Relay(run) as to:
        child = await to.child("key", "expert")
        assert await to.child("key", "expert") is child
        inner = await to.child("inner", "helper", of=child)
        await to.begin_tool("search", {}, tool_call_id="call_1", of=child)
        await to.begin_tool("search", {}, tool_call_id="call_2")
        to.end_child("key")
        to.end_child("nobody")
        await to.end_tool("call_2", "found")
    assert (child.state.status, child.state.tools[0].error) == (
        RunStatus.COMPLETED, "it did not end",
    )  # fmt: skip
    assert (inner.state.parent_run_id, inner.state.status) == (child.run_id, RunStatus.COMPLETED)
    assert run.state.tools[0].tool_output == "found"


async def test_a_sub_run_that_waits_for_the_user_is_suspended(
    emitter: UserWebSocketEmitter,
) -> None:
    async with emitter.run() as run, Relay(run) as to:
        child = await to.child("key", "expert")
        await to.begin_tool("delete", {}, tool_call_id="call_1", of=child)
        await to.begin_tool("delete", {}, tool_call_id="call_2")
        to.suspend()
    assert child.state.status is RunStatus.SUSPENDED
    tools = [*child.state.tools, *run.state.tools]
    assert [tool.error for tool in tools] == ["it waits for an answer"] * 2


async def test_threads_may_tell_of_one_sub_run(emitter: UserWebSocketEmitter) -> None:
    """It begins once, whoever speaks first."""
    async with emitter.run() as run, Relay(run) as to:
        barrier = threading.Barrier(4)

        def speak(number: int) -> None:
            barrier.wait(5)

            async def say() -> None:
                child = await to.child("key", "expert")
                await to.say(f"{number} ", message_id="m", of=child)

            asyncio.run(say())

        await asyncio.gather(*(asyncio.to_thread(speak, number) for number in range(4)))
        child = await to.child("key", "expert")
        assert sorted(child.state.text.split()) == [str(number) for number in range(4)]


async def test_a_cancel_of_a_sub_run_reaches_a_framework_in_a_thread(
    emitter: UserWebSocketEmitter,
) -> None:
    """At the next word of any run of it."""

    runs: list[Run] = []

    def agent() -> None:
        async def tell(to: Relay) -> None:
            child = await to.child("key", "expert")
            await emitter.cancel_run(child.run_id)
            await to.say("too late", message_id="m")

        with emitter.run() as run:
            runs.append(run)
            asyncio.run(tell(Relay(run)))

    with pytest.raises(RunCancelled):
        await asyncio.to_thread(agent)
    assert runs[0].state.status is RunStatus.CANCELLED
    assert runs[0].state.text == ""


# Usage


async def test_usage_is_summed_and_what_others_set_is_replaced(
    emitter: UserWebSocketEmitter,
) -> None:
    """What an application set itself is no sum to add to."""
    async with emitter.run() as run:
        run.set_usage({"mine": 1})
        for _ in range(2):
            async with Relay(run) as to:
                to.add_usage(Usage(requests=1, input_tokens=5))
    assert run.state.usage == {"requests": 2, "input_tokens": 10}
    assert Usage(requests=3) - Usage(requests=1) == Usage(requests=2)


# The pace


async def test_a_log_that_others_filled_is_waited_for(tmp_path: Path) -> None:
    """A speaker who has said nothing yet is heard as soon as there is room."""
    log = SqliteLog(tmp_path / "events.db", log_intake_bytes=40_000, log_reserve_bytes=8_000)
    async with WebSocketBridgeFactory(log=log) as bridge:
        emitter = bridge.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        await emitter.custom("app.first")
        pace = Pace()
        with locked(tmp_path / "events.db"):
            with pytest.raises(Exception, match="the intake"):
                while True:
                    emitter.custom("app.note", {"pad": "x" * 1000})
            speaking = asyncio.create_task(
                pace.call(emitter.custom, "app.note", {"pad": "y" * 1000})
            )
            await asyncio.sleep(0.2)
            assert not speaking.done()
        async with asyncio.timeout(5):
            await speaking
        await emitter.flush()
        found = [event.data async for event in bridge.events("user_123")]
    assert found[-1]["pad"][0] == "y"


async def test_a_speaker_lets_others_run(emitter: UserWebSocketEmitter) -> None:
    """On a log that is never full too: after so many events it waits for the log."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    pace = Pace()
    for _ in range(4 * AHEAD):
        await pace.call(emitter.custom, "app.note")
    counting.cancel()
    assert turns >= 3

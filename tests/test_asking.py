from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from catenary import Run, UsageError, UserWebSocketEmitter, WebSocketBridgeFactory, request
from catenary.answering import Answer, Answering, Outcome
from catenary.auth import Identity
from catenary.errors import EventTooLarge, ProtocolError
from catenary.fold import QuestionState, RunState, RunStatus, decode_state, encode_state
from catenary.inbound import Source
from catenary.questions import find, keep

ME = Source(identity=Identity(user_id="user_123"), log_id="user_123")
TAB = Source(identity=Identity(user_id="user_123"), log_id="user_123", connection_id="c_other")


async def until(check: Any) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.001)


async def types(factory: WebSocketBridgeFactory) -> list[str]:
    return [event.type async for event in factory.events("user_123")]


async def asked(factory: WebSocketBridgeFactory, count: int = 1) -> list[str]:
    """The ids of what was asked, once so many questions are in the log."""
    async with asyncio.timeout(5):
        while True:
            found = [
                event.data["request_id"]
                async for event in factory.events("user_123")
                if event.type == "input_requested"
            ]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.001)


async def answer(
    factory: WebSocketBridgeFactory, request_id: str, value: Any, id: str = "1", source: Source = ME
) -> Outcome:
    return await Answering(factory.service).take(source, request_id, value, id)


@pytest.fixture(params=["memory", "sqlite"])
async def bridge(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[WebSocketBridgeFactory]:
    """A bridge on each log."""
    url = "memory://?private" if request.param == "memory" else f"sqlite:///{tmp_path}/events.db"
    async with WebSocketBridgeFactory(log=url, run_drain_timeout=0.5) as made:
        yield made


# Waiting inside a run


async def test_a_run_waits_for_the_answer_and_goes_on(bridge: WebSocketBridgeFactory) -> None:
    """Asked, answered and completed, all events of the one run, in this order."""
    emitter = await bridge.create_user_emitter("user_123", "t1")

    async def agent(run: Run) -> Any:
        return await run.ask("Which colour?", schema={"type": "string"})

    handle = emitter.start_run(agent)
    (request_id,) = await asked(bridge)
    assert await answer(bridge, request_id, "blue") == Outcome(True, "blue")
    await handle.wait()
    events = [event async for event in bridge.events("user_123")]
    assert [event.type for event in events] == [
        "agent_started", "input_requested", "input_resolved", "agent_completed",
    ]  # fmt: skip
    assert {event.run_id for event in events} == {handle.run_id}
    question, resolved = events[1].data, events[2].data
    assert question["kind"] == "question"
    assert question["question"] == "Which colour?"
    assert question["schema"] == {"type": "string"}
    assert resolved == {
        "request_id": request_id, "by": "user_123", "answer": "blue", "client_message_id": "1",
    }  # fmt: skip
    assert events[3].data["result"] == "blue"


async def test_the_first_answer_wins_and_later_ones_get_it(bridge: WebSocketBridgeFactory) -> None:
    """Of ten at once one is first; the others, and one much later, are told its answer."""
    emitter = await bridge.create_user_emitter("user_123", "t1")
    handle = emitter.start_run(lambda run: asyncio.run(run.ask("Yes?")))
    (request_id,) = await asked(bridge)
    outcomes = await asyncio.gather(
        *(answer(bridge, request_id, n, id=f"m{n}", source=TAB) for n in range(10))
    )
    await handle.wait()
    (winner,) = [n for n, outcome in enumerate(outcomes) if outcome.is_first]
    assert {outcome.answer for outcome in outcomes} == {winner}
    assert await answer(bridge, request_id, "late", id="late") == Outcome(False, winner)
    assert await answer(bridge, request_id, winner, id=f"m{winner}") == Outcome(True, winner)
    assert (await types(bridge)).count("input_resolved") == 1
    (run,) = await bridge.runs("user_123")
    assert run.result == winner


async def test_a_late_answer_finds_the_first_in_the_log(bridge: WebSocketBridgeFactory) -> None:
    """Also where whoever took the first one died before it was remembered."""
    emitter = await bridge.create_user_emitter("user_123", "t1")
    handle = emitter.start_run(lambda run: asyncio.run(run.ask("Yes?")))
    (request_id,) = await asked(bridge)
    unanswered = await find(bridge.log, "user_123", request_id)
    assert unanswered is not None
    await answer(bridge, request_id, "first")
    await handle.wait()
    await keep(bridge.log, "user_123", [unanswered])
    assert await answer(bridge, request_id, "late", id="late") == Outcome(False, "first")
    assert (await types(bridge)).count("input_resolved") == 1


async def test_an_answer_from_another_bridge_on_the_same_log_arrives(
    factory: WebSocketBridgeFactory,
) -> None:
    """A run learns its answer from the log, so it does not matter who took it."""
    other = WebSocketBridgeFactory(log=factory.log)
    emitter = await factory.create_user_emitter("user_123", "t1")
    handle = emitter.start_run(lambda run: asyncio.run(run.ask("Yes?")))
    (request_id,) = await asked(factory)
    assert (await answer(other, request_id, True)).is_first
    async with asyncio.timeout(5):
        await handle.wait()
    assert (await factory.runs("user_123"))[0].result is True


async def test_ids_that_were_not_issued_are_forbidden(bridge: WebSocketBridgeFactory) -> None:
    """So is another user's question, and one in a thread that is not granted."""
    emitter = await bridge.create_user_emitter("user_123", "t1")
    handle = emitter.start_run(lambda run: asyncio.run(run.ask("Yes?")))
    (request_id,) = await asked(bridge)
    stranger = Source(identity=Identity(user_id="user_456"), log_id="user_456")
    for source, id in ((ME, "ask_unknown"), (stranger, request_id)):
        with pytest.raises(ProtocolError) as refused:
            await answer(bridge, id, True, source=source)
        assert refused.value.code == "forbidden"
    bridge.service.authorize_thread = lambda _, thread_id: thread_id != "t1"
    with pytest.raises(ProtocolError) as refused:
        await answer(bridge, request_id, True)
    assert refused.value.code == "forbidden"
    bridge.service.authorize_thread = lambda *_: True
    await answer(bridge, request_id, True)
    await handle.wait()


async def test_a_question_expires(bridge: WebSocketBridgeFactory) -> None:
    """The agent gets a TimeoutError, every tab an input_resolved by expiry; answers come too late."""
    emitter = await bridge.create_user_emitter("user_123", "t1")
    async with emitter.run() as run:
        with pytest.raises(TimeoutError, match="Yes"):
            await run.ask("Yes?", timeout=0.05)
    (request_id,) = await asked(bridge)
    with pytest.raises(ProtocolError) as refused:
        await answer(bridge, request_id, True)
    assert refused.value.code == "not_found"
    (state,) = await bridge.runs("user_123")
    assert [(one.by, one.answer) for one in state.questions] == [("expiry", None)]
    assert state.status is RunStatus.COMPLETED


async def test_waiting_for_the_user_does_not_count_as_time(bridge: WebSocketBridgeFactory) -> None:
    """A run with timeouts waits longer than these, and has them again afterwards."""
    emitter = await bridge.create_user_emitter("user_123", "t1")

    async def agent() -> None:
        async with emitter.run(timeout=0.5, idle_timeout=0.3) as run:
            await run.ask("Yes?")
            await asyncio.sleep(60)

    task = asyncio.create_task(agent())
    (request_id,) = await asked(bridge)
    await asyncio.sleep(0.8)
    assert not task.done()
    await answer(bridge, request_id, True)
    with pytest.raises(TimeoutError):
        await task


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_cancel_ends_the_wait(bridge: WebSocketBridgeFactory, kind: str) -> None:
    """In a task and in a thread; the question is over then."""
    emitter = await bridge.create_user_emitter("user_123", "t1")

    async def agent(run: Run) -> None:
        await run.ask("Yes?")

    handle = emitter.start_run(
        agent if kind == "task" else lambda run: asyncio.run(run.ask("Yes?"))
    )
    (request_id,) = await asked(bridge)
    await handle.cancel("enough")
    async with asyncio.timeout(5):
        await handle.wait()
    assert (await types(bridge))[-1] == "agent_cancelled"
    assert await bridge.questions("user_123") == []
    with pytest.raises(ProtocolError) as refused:
        await answer(bridge, request_id, True)
    assert refused.value.code == "not_found"


async def test_a_question_that_is_given_up_is_withdrawn(bridge: WebSocketBridgeFactory) -> None:
    """A run that goes on without the answer closes its question for every tab."""
    emitter = await bridge.create_user_emitter("user_123", "t1")
    async with emitter.run() as run:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run.ask("Yes?"), 0.05)
        assert [one.by for one in run.state.questions] == ["withdrawn"]
    (request_id,) = await asked(bridge)
    with pytest.raises(ProtocolError) as refused:
        await answer(bridge, request_id, True)
    assert refused.value.code == "not_found"


@pytest.mark.parametrize(
    ("value", "is_yes"),
    [(True, True), ({"approved": True}, True), (False, False), ({"approved": 1}, False), ("yes", False)],
)  # fmt: skip
async def test_a_tool_asks_for_approval(
    bridge: WebSocketBridgeFactory, value: Any, is_yes: bool
) -> None:
    """The question names the call; only a plain yes approves."""
    emitter = await bridge.create_user_emitter("user_123", "t1")

    async def agent(run: Run) -> bool:
        async with run.tool("delete", {"path": "/tmp/x"}, tool_call_id="call_1") as tool:
            return await tool.approved("Delete it?")

    handle = emitter.start_run(agent)
    (request_id,) = await asked(bridge)
    (pending,) = await bridge.questions("user_123")
    assert (pending.kind, pending.tool_call_id) == ("approval", "call_1")
    await answer(bridge, request_id, value)
    await handle.wait()
    assert (await bridge.runs("user_123"))[0].result is is_yes
    assert await bridge.questions("user_123") == []


# Suspending


async def test_a_suspended_run_is_continued_when_all_is_answered(
    bridge: WebSocketBridgeFactory,
) -> None:
    """The handler is called once, with every answer and the kept state; its run names the former."""
    calls: list[Answer] = []

    async def go_on(run: Run, found: Answer) -> Any:
        return found.answers

    @bridge.on_answer
    async def resumed(found: Answer, emitter: UserWebSocketEmitter) -> None:
        calls.append(found)
        emitter.start_run(go_on, found)

    emitter = await bridge.create_user_emitter("user_123", "t1")
    async with emitter.run() as run:
        ids = run.suspend(
            [
                request("Delete?", kind="approval", tool_name="delete", tool_input={"token": "x"}),
                request("Why?"),
            ],
            state={"messages": [1, 2]},
        )
    assert [one.request_id for one in await bridge.questions("user_123", thread_id="t1")] == ids
    assert await answer(bridge, ids[1], "because") == Outcome(True, "because")
    assert calls == []
    assert await answer(bridge, ids[0], True, id="2") == Outcome(True, True)
    assert await answer(bridge, ids[0], True, id="2") == Outcome(True, True)
    await until(lambda: not bridge.supervisor.running)
    (found,) = calls
    assert (found.run_id, found.thread_id, found.state) == (run.run_id, "t1", {"messages": [1, 2]})
    assert list(found.answers) == ids
    assert found.answer is True
    assert found.requests[0].tool_input == {"token": "[REDACTED]"}
    first, second = await bridge.runs("user_123")
    assert (first.status, first.pending) == (RunStatus.SUSPENDED, ())
    assert second.continues_run_id == run.run_id
    assert second.result == {ids[0]: True, ids[1]: "because"}
    assert (await types(bridge))[:4] == [
        "agent_started", "input_requested", "input_requested", "agent_completed",
    ]  # fmt: skip


async def test_an_answer_after_a_restart_continues_the_run(tmp_path: Path) -> None:
    """The question outlives its process; one that only waited in it is continued too."""
    url = f"sqlite:///{tmp_path}/events.db"
    async with WebSocketBridgeFactory(log=url, run_drain_timeout=0.01) as first:
        emitter = await first.create_user_emitter("user_123", "t1")
        async with emitter.run() as run:
            (suspended,) = run.suspend(request("Yes?"))
        waiting = emitter.start_run(lambda run: asyncio.run(run.ask("And?")))
        _, waited = await asked(first, 2)
    continued: list[str] = []
    async with WebSocketBridgeFactory(log=url) as second:

        @second.on_answer
        def resumed(found: Answer, emitter: UserWebSocketEmitter) -> None:
            continued.append(found.run_id)

        await answer(second, suspended, 1, id="1")
        await answer(second, waited, 2, id="2")
        assert continued == [run.run_id, waiting.run_id]


async def test_without_a_handler_an_answer_is_refused_and_the_question_stays(
    bridge: WebSocketBridgeFactory,
) -> None:
    """A server that cannot go on does not take the answer."""
    emitter = await bridge.create_user_emitter("user_123", "t1")
    async with emitter.run() as run:
        (request_id,) = run.suspend(request("Yes?"))
    with pytest.raises(ProtocolError) as refused:
        await answer(bridge, request_id, True)
    assert refused.value.code == "unknown_type"
    assert len(await bridge.questions("user_123")) == 1


async def test_a_suspended_question_expires_with_the_first_late_answer(
    bridge: WebSocketBridgeFactory,
) -> None:
    """Nobody lives to close it before; the late answer does, and is told so."""
    bridge.on_answer(lambda *_: None)
    emitter = await bridge.create_user_emitter("user_123", "t1")
    async with emitter.run() as run:
        (request_id,) = run.suspend(request("Yes?", timeout=0.01))
    await asyncio.sleep(0.02)
    with pytest.raises(ProtocolError) as refused:
        await answer(bridge, request_id, True)
    assert refused.value.code == "not_found"
    assert (await types(bridge))[-1] == "input_resolved"
    assert await bridge.questions("user_123") == []


async def test_a_thread_suspends_its_run(bridge: WebSocketBridgeFactory) -> None:
    """``with`` works as ``async with`` does."""
    emitter = await bridge.create_user_emitter("user_123", "t1")

    def agent() -> None:
        with emitter.run() as run:
            run.suspend(request("Yes?"))

    thread = threading.Thread(target=agent)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(await bridge.questions("user_123")) == 1


async def test_erasing_forgets_the_questions(bridge: WebSocketBridgeFactory) -> None:
    """Afterwards they are as unknown as if they had never been asked."""
    bridge.on_answer(lambda *_: None)
    emitter = await bridge.create_user_emitter("user_123", "t1")
    async with emitter.run() as run:
        (request_id,) = run.suspend(request("Yes?"))
    await bridge.erase("user_123", "t1")
    with pytest.raises(ProtocolError) as refused:
        await answer(bridge, request_id, True)
    assert refused.value.code == "forbidden"


async def test_nonsense_is_refused_at_the_call(emitter: UserWebSocketEmitter) -> None:
    """With what to do instead."""
    async with emitter.run() as run:
        with pytest.raises(UsageError, match="approval, question"):
            await run.ask("?", kind="riddle")
        with pytest.raises(UsageError, match="at least one"):
            run.suspend([])
        with pytest.raises(EventTooLarge):
            run.suspend(request("?"), state="x" * 300_000)
        with pytest.raises(UsageError, match="positive"):
            request("?", timeout=-1)
        assert run.state.questions == ()


def test_the_folded_state_survives_being_saved() -> None:
    """Questions are part of what is kept of a run whose events are gone."""
    state = RunState(run_id="r1", questions=(QuestionState(request_id="q1", by="me", answer=[1]),))
    assert decode_state(encode_state(state)) == state
    assert json.loads(encode_state(state))["questions"][0]["answer"] == [1]

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from catenary import (
    LifecycleError,
    Position,
    Receipt,
    RunClosed,
    UsageError,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    WebSocketEvent,
)
from catenary.errors import EventTooLarge


async def events(factory: WebSocketBridgeFactory) -> list[WebSocketEvent]:
    return [event async for event in factory.events("user_123")]


async def test_every_verb_is_an_event_of_the_protocol(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Types and data are those of docs/protocol.md; absent fields are left out."""
    emitter.agent_started("researcher", task="why")
    emitter.agent_thinking("hm", 1, 3)
    emitter.agent_delta("Be", message_id="m1")
    emitter.tool_executing("search", {"q": "x"}, tool_call_id="c1")
    emitter.progress_update("half", 50)
    emitter.tool_completed("search", {"hits": 2}, tool_call_id="c1")
    emitter.custom("app.note", {"n": 1})
    emitter.agent_completed({"answer": 42}, usage={"total_tokens": 9})
    found = await events(factory)
    assert [(event.type, event.data) for event in found[:5]] == [
        ("agent_started", {"task": "why"}),
        ("agent_thinking", {"thinking": "hm", "step": 1, "total_steps": 3}),
        ("agent_delta", {"message_id": "m1", "part": "text", "delta": "Be"}),
        ("tool_executing", {"tool_name": "search", "tool_call_id": "c1", "tool_input": {"q": "x"}}),
        ("progress_update", {"message": "half", "percentage": 50}),
    ]
    completed = found[5].data
    assert completed["success"] is True
    assert completed["tool_output"] == {"hits": 2}
    assert completed["duration_ms"] >= 0
    assert found[7].data["result"] == {"answer": 42}
    assert found[7].data["usage"] == {"total_tokens": 9}
    assert {event.run_id for event in found} == {emitter.run_id}
    assert {event.agent_name for event in found} == {"researcher"}


async def test_a_receipt_gives_the_position_on_any_loop_and_thread(
    emitter: UserWebSocketEmitter,
) -> None:
    """Awaited here, awaited on another loop, waited for in a thread: the same position."""
    receipt = emitter.custom("app.note")
    here = await receipt

    async def elsewhere() -> Position:
        return await receipt

    there = await asyncio.to_thread(asyncio.run, elsewhere())
    in_thread = await asyncio.to_thread(receipt.result, 1.0)
    assert here == there == in_thread
    assert here.seq == 1


async def test_awaiting_always_lets_other_tasks_run(emitter: UserWebSocketEmitter) -> None:
    """Also when the outcome is known: a loop of awaited verbs does not starve the readers."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(10):
        await emitter.custom("app.note")
    task.cancel()
    assert turns >= 9


async def test_result_on_a_running_loop_is_refused(emitter: UserWebSocketEmitter) -> None:
    """It would block every connection of the loop."""
    with pytest.raises(UsageError, match="await"):
        emitter.custom("app.note").result()


def test_emitting_needs_no_loop() -> None:
    """A factory made and used in a plain thread, before any server."""
    factory = WebSocketBridgeFactory(log="memory://?private")
    emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    assert emitter.custom("app.note").result(1.0).seq == 1


async def test_later_changes_by_the_caller_change_nothing(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Data are encoded at the call."""
    data = {"list": [1]}
    emitter.custom("app.note", data)
    data["list"].append(2)
    assert (await events(factory))[0].data == {"list": [1]}


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Hit:
    title: str
    at: dt.datetime


class Odd:
    """Has no JSON form."""


async def test_whatever_agents_pass_is_encoded(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Dataclasses, dates, ids, decimals, enums, sets and bytes; the rest is named, not fatal."""
    emitter.custom(
        "app.note",
        {
            "hit": Hit("x", dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
            "id": uuid.UUID(int=1),
            "price": Decimal("1.50"),
            "colour": Colour.RED,
            "set": {1},
            "bytes": b"hi",
            "nan": float("nan"),
            "odd": Odd(),
        },
    )
    assert (await events(factory))[0].data == {
        "hit": {"title": "x", "at": "2026-01-02T00:00:00Z"},
        "id": "00000000-0000-0000-0000-000000000001",
        "price": "1.50",
        "colour": "red",
        "set": [1],
        "bytes": "aGk=",
        "nan": None,
        "odd": {"unencodable": "Odd"},
    }


async def test_secrets_of_tools_and_results_never_reach_the_log(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Inputs, outputs, results and errors are redacted at any depth; numbers survive."""
    emitter.agent_started()
    emitter.tool_executing("call", {"headers": [{"api_key": "s3cret"}]}, tool_call_id="c")
    emitter.tool_completed("call", {"accessToken": "s3cret"}, tool_call_id="c", error=None)
    emitter.agent_completed({"password": "s3cret", "max_tokens": 5})
    found = await events(factory)
    assert "s3cret" not in str([event.data for event in found])
    assert found[-1].data["result"] == {"password": "[REDACTED]", "max_tokens": 5}


async def test_the_hook_replaces_redaction() -> None:
    """It sees every event and returns it with other data."""

    def shout(event: WebSocketEvent) -> WebSocketEvent:
        data = {key: str(value).upper() for key, value in event.data.items()}
        return WebSocketEvent(type=event.type, id=event.id, seq=event.seq, data=data)

    factory = WebSocketBridgeFactory(log="memory://?private", redact=shout)
    emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    emitter.custom("app.note", {"a": "quiet"})
    emitter.agent_started()
    emitter.agent_delta("quiet")
    found = [event async for event in factory.events("user_123")]
    assert found[0].data == {"a": "QUIET"}
    assert found[2].data["delta"] == "QUIET"


async def test_data_over_the_limit_are_refused_and_tool_output_is_cut(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """256 KiB is the limit; exactly under it passes."""
    big = "x" * (256 * 1024)
    emitter.agent_started()
    calls: list[Callable[[], Receipt]] = [
        lambda: emitter.custom("app.note", {"text": big}),
        lambda: emitter.agent_delta(big),
        lambda: emitter.agent_thinking(big),
        lambda: emitter.tool_executing("t", big),
    ]
    for call in calls:
        with pytest.raises(EventTooLarge, match="the limit is 262,144"):
            call()
    emitter.tool_executing("t", tool_call_id="c")
    emitter.tool_completed("t", big, tool_call_id="c")
    emitter.custom("app.note", {"text": "x" * (256 * 1024 - len('{"text":""}'))})
    data = (await events(factory))[2].data
    assert data["truncated"] is True
    assert "cut: " in data["tool_output"]


@pytest.mark.parametrize("type", ["agent_started", "gap", "ping", "", "a b", "x" * 129, "ü.x", 7])
def test_built_in_and_odd_names_are_refused(emitter_without_loop: Any, type: Any) -> None:
    """An application's type is a plain name of its own."""
    with pytest.raises(UsageError):
        emitter_without_loop.custom(type)


@pytest.fixture
def emitter_without_loop() -> UserWebSocketEmitter:
    factory = WebSocketBridgeFactory(log="memory://?private")
    return factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))


async def test_an_idempotency_key_appends_once(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A repeat gets the first position; the same key for another event is an error."""
    first = await emitter.custom("app.note", {"n": 1}, idempotency_key="k")
    again = await emitter.custom("app.note", {"n": 1}, idempotency_key="k")
    assert first == again
    with pytest.raises(UsageError, match="was used for another event"):
        emitter.custom("app.note", {"n": 2}, idempotency_key="k")
    assert len(await events(factory)) == 1


async def test_repeats_of_ends_are_recognised_although_time_has_passed(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """How long something took is not part of what a caller said."""
    emitter.agent_started()
    emitter.tool_executing("search", tool_call_id="c1")
    places = []
    for _ in range(2):
        places.append(await emitter.tool_completed("search", {"n": 1}, idempotency_key="tool"))
        await asyncio.sleep(0.005)
    for _ in range(2):
        places.append(await emitter.agent_completed({"n": 1}, idempotency_key="end"))
        await asyncio.sleep(0.005)
    assert [place.seq for place in places] == [3, 3, 4, 4]
    with pytest.raises(UsageError, match="was used for another event"):
        emitter.agent_completed({"n": 2}, idempotency_key="end")


async def test_contexts_without_ids_get_a_new_run_at_each_start(
    factory: WebSocketBridgeFactory,
) -> None:
    """Two starts, two runs; with an id of its own a second start is refused."""
    emitter = await factory.create_user_emitter("user_123", thread_id="t1")
    emitter.agent_started()
    first = emitter.run_id
    emitter.agent_completed()
    emitter.agent_started()
    assert emitter.run_id != first
    fixed = factory.get_user_emitter(UserWebSocketContext(user_id="user_123", run_id="r1"))
    fixed.agent_started()
    with pytest.raises(LifecycleError):
        fixed.agent_started()


async def test_two_emitters_share_the_grammar_of_a_run(factory: WebSocketBridgeFactory) -> None:
    """What one emitter ended, the other cannot continue."""
    one, two = (
        factory.get_user_emitter(UserWebSocketContext(user_id="user_123", run_id="r1"))
        for _ in range(2)
    )
    one.agent_started("researcher")
    two.agent_delta("from the other")
    one.agent_completed()
    with pytest.raises(RunClosed):
        two.agent_delta("late")
    assert (await events(factory))[1].agent_name == "researcher"


async def test_errors_and_cancels_close_open_tools_first(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The tools are completed as failed in the same step as the end."""
    emitter.agent_started()
    emitter.tool_executing("a", tool_call_id="1")
    emitter.tool_executing("b", tool_call_id="2")
    emitter.agent_error("broken", code="x")
    found = await events(factory)
    assert [event.type for event in found[-3:]] == [
        "tool_completed", "tool_completed", "agent_error",
    ]  # fmt: skip
    assert [event.data["tool_call_id"] for event in found[-3:-1]] == ["1", "2"]


async def test_fifty_threads_and_three_loops_keep_their_order(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The log is dense, and each thread's own events are in its order."""

    def in_thread(sender: int) -> None:
        for number in range(40):
            emitter.custom("app.note", {"sender": sender, "number": number})

    async def on_loop(sender: int) -> None:
        for number in range(40):
            await emitter.custom("app.note", {"sender": sender, "number": number})

    threads = [threading.Thread(target=in_thread, args=(n,)) for n in range(50)]
    loops = [threading.Thread(target=asyncio.run, args=(on_loop(50 + n),)) for n in range(3)]
    for thread in threads + loops:
        thread.start()
    for thread in threads + loops:
        await asyncio.to_thread(thread.join)
    found = await events(factory)
    assert [event.seq for event in found] == list(range(1, 53 * 40 + 1))
    for sender in range(53):
        numbers = [e.data["number"] for e in found if e.data["sender"] == sender]
        assert numbers == list(range(40))


async def test_seen_waits_for_the_acknowledgement_of_a_client(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """False after the timeout; true once a client's position reached it."""
    place = await emitter.custom("app.note")
    assert await emitter.seen(place, timeout=0.01) is False
    waiting = asyncio.create_task(emitter.seen(place, timeout=5))
    await asyncio.sleep(0)
    await factory.log.note_seen("user_123", place)
    assert await waiting is True
    assert await emitter.seen(place) is True


async def test_flush_waits_for_everything(emitter: UserWebSocketEmitter) -> None:
    """After it every receipt is settled."""
    receipts: list[Receipt] = [emitter.custom("app.note") for _ in range(10)]
    await emitter.flush()
    assert all(receipt.is_settled for receipt in receipts)


@pytest.mark.parametrize("user_id", ["", "x" * 257, "a\nb", "\ud800", 7, None])
def test_ids_that_cannot_be_names_are_refused(user_id: Any) -> None:
    """The error names the field."""
    with pytest.raises(UsageError, match="user_id"):
        UserWebSocketContext(user_id=user_id)


def test_missing_ids_are_generated() -> None:
    """Two contexts of one user share nothing but the user and the log."""
    one, two = UserWebSocketContext(user_id="user_123"), UserWebSocketContext(user_id="user_123")
    assert one.log_id == two.log_id == "user_123"
    assert one.run_id != two.run_id
    assert all([one.thread_id, one.session_id, one.connection_id])

"""Two bridges over one shared log: whatever node is asked, the answer is the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from catenary import Run, UserWebSocketEmitter
from catenary.errors import CloseCode, RunClosed
from catenary.eventlog.base import EventLog
from catenary.eventlog.nats.log import NatsLog
from catenary.eventlog.redis.log import RedisLog
from catenary.fold import RunState
from catenary.limits import Limits
from tests.e2e.support import Bridge, Reader, bridge, token_of
from tests.nats_server import nats_url_of_its_own
from tests.redis_server import url_of_its_own

USER = "user_123"
PATH = f"/api/users/{USER}/events"

Nodes = tuple[Bridge, Bridge]
NewLog = Callable[[], EventLog]


@pytest.fixture(params=["redis", "nats"])
def new_log(request: pytest.FixtureRequest) -> NewLog:
    """Make a log over one store; each call makes that of another process."""
    if request.param == "nats":
        return partial(NatsLog, nats_url_of_its_own())
    return partial(RedisLog, url_of_its_own())


@pytest_asyncio.fixture
async def nodes(new_log: NewLog) -> AsyncIterator[Nodes]:
    """Two bridges that share nothing but the log."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(bridge(new_log()))
        second = await stack.enter_async_context(bridge(new_log()))
        yield first, second


async def test_any_node_may_emit_and_any_may_be_read(nodes: Nodes) -> None:
    """Readers on both nodes get what both emit, in one order; a place of one resumes on the other."""
    readers = [await Reader.open(node, USER) for node in nodes]
    emitters = [node.emitter(USER, thread_id="t1") for node in nodes]
    for n in range(20):
        await emitters[n % 2].custom("app.note", {"n": n})
    for reader in readers:
        await reader.until(lambda reader=reader: reader.reached == 20)  # type: ignore[misc]
        assert [event["data"]["n"] for event in reader.received] == list(range(20))
        assert (reader.faults, reader.gaps) == ([], [])
    resumed = await Reader.open(nodes[1], USER, after=readers[0].received[9]["id"])
    await resumed.until(lambda: resumed.reached == 20)
    assert [event["data"]["n"] for event in resumed.received] == list(range(10, 20))
    assert resumed.gaps == []


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_the_limit_of_connections_is_one_for_all_nodes(new_log: NewLog) -> None:
    """Over it the longest silent is closed with 4505, wherever it is; other users keep theirs."""
    async with AsyncExitStack() as stack:
        limits = Limits(connections_per_user=3)
        nodes = [await stack.enter_async_context(bridge(new_log(), limits=limits)) for _ in "123"]
        others = [await Reader.open(node, "user_456") for node in nodes]
        readers = [await Reader.open(node, USER) for node in nodes]
        for reader in (readers[0], readers[2]):
            # Some time of silence, so that one is silent for longer than the others.
            await asyncio.sleep(0.05)
            await reader.answer_to({"type": "ping"})
        await asyncio.sleep(0.05)
        newer = await Reader.open(nodes[2], USER)
        assert await readers[1].ended() == CloseCode.TOO_MANY_CONNECTIONS
        await asyncio.sleep(0.05)
        newest = await Reader.open(nodes[1], USER)
        assert await readers[0].ended() == CloseCode.TOO_MANY_CONNECTIONS
        for reader in (readers[2], newer, newest, *others):
            assert (await reader.answer_to({"type": "ping"}))["type"] == "pong"


async def test_who_is_connected_is_known_everywhere(nodes: Nodes) -> None:
    """Presence, connections and disconnecting are those of all nodes."""
    first, second = (node.factory.manager for node in nodes)
    assert not await second.is_online(USER)
    readers = [await Reader.open(nodes[0], USER), await Reader.open(nodes[0], USER)]
    await _until(lambda: second.is_online(USER))
    assert await first.is_online(USER)
    readers.append(await Reader.open(nodes[1], USER))
    other = await Reader.open(nodes[0], "user_other")
    assert second.connections(USER)[0].node == nodes[1].factory.log.holder
    for manager in (first, second):
        found = await manager.everywhere(USER)
        assert len(found.connections) == 3
        assert {info.node for info in found.connections} == {
            node.factory.log.holder for node in nodes
        }
    async with nodes[0].http() as http:
        shown = (await http.get("/api/inspect", params={"user": USER})).json()
        assert shown["totals"]["connections"] == 3
    assert await second.disconnect(USER) == 3
    for reader in readers:
        assert await reader.ended() == CloseCode.FORBIDDEN
    assert not other.is_over

    async def is_offline() -> bool:
        return not await first.is_online(USER)

    await _until(is_offline)


async def test_a_run_is_cancelled_from_any_node(nodes: Nodes) -> None:
    """A reader of one node stops the agent on the other; its end says who asked."""
    reader = await Reader.open(nodes[1], USER)

    async def agent(run: Run) -> None:
        await run.wait_cancelled()
        run.raise_if_cancelled()

    handle = nodes[0].emitter(USER).start_run(agent)
    await reader.until(lambda: reader.of_type("agent_started"))
    answer = await reader.answer_to(
        {"type": "cancel_run", "id": "c1", "run_id": handle.run_id, "reason": "enough"}
    )
    assert answer["type"] == "ack"
    await reader.until(lambda: reader.of_type("agent_cancelled"))
    (end,) = reader.of_type("agent_cancelled")
    assert (end["data"]["reason"], end["data"]["by"]) == ("enough", "user")
    await handle.wait()
    again = {"type": "cancel_run", "id": "c2", "run_id": handle.run_id}
    assert (await reader.answer_to(again))["already_ended"]


async def test_an_operator_closes_a_run_of_another_node(nodes: Nodes) -> None:
    """The run ends at once, wherever its agent is; that is refused from then on."""
    goes_on = asyncio.Event()
    failed: list[BaseException] = []

    async def agent(run: Run) -> None:
        await goes_on.wait()
        for _ in range(2):
            try:
                await run.delta("late")
            except RunClosed as error:
                failed.append(error)

    handle = nodes[0].emitter(USER).start_run(agent)
    reader = await Reader.open(nodes[1], USER, after="start")
    await reader.until(lambda: reader.of_type("agent_started"))
    async with nodes[1].http() as http:
        answer = await http.post(f"/api/runs/{handle.run_id}/close", json={"reason": "it hangs"})
        assert answer.json() == {"run_id": handle.run_id, "already_ended": False}
        answer = await http.post(f"/api/runs/{handle.run_id}/close", json={})
        assert answer.json()["already_ended"]
        assert (await http.post("/api/runs/nobodys/close", json={})).status_code == 404
    goes_on.set()
    await handle.wait()
    assert len(failed) == 2
    await nodes[0].emitter(USER).custom("app.note")
    await reader.until(lambda: reader.of_type("app.note"))
    (end,) = reader.of_type("agent_error")
    assert end["data"]["message"] == "it hangs"
    assert not reader.of_type("agent_delta")


async def test_a_run_over_http_may_hit_any_node(nodes: Nodes) -> None:
    """Its events go to either node; the grammar, the keys and a cancel hold over both."""
    async with nodes[0].http() as first, nodes[1].http() as second:

        async def say(http: Any, type: str, key: str | None = None, **data: Any) -> Any:
            headers = {"idempotency-key": key} if key else {}
            event = {"type": type, "run_id": "r1", "thread_id": "t1", "data": data}
            return await http.post(PATH, json=event, headers=headers)

        assert (await say(second, "agent_delta", delta="early")).status_code == 409
        began = await say(first, "agent_started", "k1")
        assert began.status_code == 201, began.text
        assert (await say(second, "agent_started", "k1")).json() == began.json()
        assert (await say(second, "agent_started")).status_code == 409
        for n, http in enumerate((second, first, second)):
            assert (await say(http, "agent_delta", delta=f"{n} ")).status_code == 201
        ran = await say(first, "tool_executing", tool_name="search", tool_call_id="c1")
        assert ran.status_code == 201
        assert (await say(second, "agent_completed")).status_code == 409
        tool = {"tool_name": "search", "tool_call_id": "c1", "success": True}
        done = await say(second, "tool_completed", "k2", **tool)
        assert done.status_code == 201, done.text
        again = await say(first, "tool_completed", "k2", **tool)
        assert again.json() == done.json()
        await second.post("/api/runs/r1/cancel", json={})
        assert (await say(first, "agent_delta", delta="3")).json()["cancelled"] == ["r1"]
        ended = await say(second, "agent_completed", "k3")
        assert ended.status_code == 201, ended.text
        assert (await say(first, "agent_completed", "k3")).json() == ended.json()
        late = await say(first, "agent_delta", delta="late")
        assert (late.status_code, late.json()["error"]) == (409, "run_closed")
        run = (await first.get(f"/api/users/{USER}/runs")).json()["runs"][0]
        assert (run["messages"][0]["text"], run["status"]) == ("0 1 2 3", "completed")


async def test_many_requests_for_one_run_at_once(nodes: Nodes) -> None:
    """Requests that take the run from each other are all served, each list whole."""
    async with nodes[0].http() as first, nodes[1].http() as second:
        start = {"type": "agent_started", "run_id": "r1", "data": {}}
        assert (await first.post(PATH, json=start)).status_code == 201

        async def say(n: int) -> int:
            http = (first, second)[n % 2]
            beside = {"type": "app.note", "data": {"n": n}}
            within = {"type": "agent_delta", "run_id": "r1", "data": {"delta": f"{n},"}}
            for attempt in range(50):
                answer = await http.post(PATH, json=[beside, within])
                if answer.status_code == 201:
                    return attempt
                assert answer.json()["error"] == "run_closed"
            raise AssertionError("never served")

        await asyncio.gather(*(say(n) for n in range(40)))
        events = (await second.get(PATH, params={"limit": 500})).json()["events"]
    notes = sorted(event["data"]["n"] for event in events if event["type"] == "app.note")
    said = "".join(event["data"]["delta"] for event in events if event["type"] == "agent_delta")
    assert notes == list(range(40))
    assert sorted(said.split(",")) == sorted(["", *map(str, range(40))])


async def test_a_message_is_handled_once_whatever_node_gets_it(nodes: Nodes) -> None:
    """The same id on another node gets the stored reply; tickets open on any node."""
    handled: list[str] = []
    for number, node in enumerate(nodes):

        @node.factory.on_message("app.ask")
        async def ask(message: Any, emitter: UserWebSocketEmitter, number: int = number) -> Any:
            handled.append(message.id)
            return {"node": number}

    readers = [await Reader.open(node, USER) for node in nodes]
    message = {"type": "app.ask", "id": "m1", "data": {}}
    answers = [await reader.answer_to(message) for reader in (*readers, *readers)]
    assert handled == ["m1"]
    assert [answer["reply"] for answer in answers] == [{"node": 0}] * 4
    async with nodes[0].http(token_of(USER)) as http:
        ticket = (await http.post("/api/tickets", json={"purpose": "ws"})).json()["ticket"]
    opened = await Reader.open(nodes[1], None, ticket=ticket)
    assert opened.head["user_id"] == USER
    again = await Reader.connect(nodes[0], None, ticket=ticket)
    await again.ended()
    assert again.status == 401


async def test_what_was_seen_reaches_the_agent_s_node(nodes: Nodes) -> None:
    """An agent on one node learns that a client on the other has acknowledged an event."""
    reader = await Reader.open(nodes[1], USER)
    emitter = nodes[0].emitter(USER)
    place = await emitter.custom("app.note", {"n": 1})
    waiting = asyncio.create_task(emitter.seen(place, timeout=10))
    await reader.until(lambda: reader.reached == place.seq)
    answer = await reader.answer_to({"type": "position", "position": str(place)})
    assert answer["type"] == "position_ok"
    assert await waiting


async def test_an_end_is_reported_once_by_whoever_has_a_handler(new_log: NewLog) -> None:
    """Ends of all nodes go to those with handlers, each to one; a node without leaves them."""
    told: list[tuple[int, str]] = []
    async with AsyncExitStack() as stack:
        silent = await stack.enter_async_context(bridge(new_log()))
        await silent.emitter(USER, run_id="before").agent_started()
        await silent.emitter(USER, run_id="before").agent_completed()
        listening = [await stack.enter_async_context(bridge(new_log())) for _ in range(2)]
        for number, node in enumerate(listening):

            @node.factory.on_run_end
            def note(state: RunState, number: int = number) -> None:
                told.append((number, str(state.run_id)))

        for node in (*listening, silent):
            async with node.emitter(USER).run(run_id=f"r{len(told)}-{node.factory.log.holder}"):
                pass
        async with asyncio.timeout(15):
            while len(told) < 3:
                await asyncio.sleep(0.01)
    runs = [run_id for _, run_id in told]
    assert len(runs) == len(set(runs))
    assert "before" in runs


async def test_a_retried_job_takes_its_run_over(nodes: Nodes) -> None:
    """``takeover=True`` on another node goes on with the open run, and fences the first holder."""
    reader = await Reader.open(nodes[1], USER)
    first = nodes[0].emitter(USER, run_id="job")
    await first.agent_started()
    await first.agent_delta("a")
    async with nodes[1].emitter(USER).run(run_id="job", takeover=True) as run:
        run.delta("b")
        assert run.state.text == "ab"
    await reader.until(lambda: reader.of_type("agent_completed"))
    assert len(reader.of_type("agent_started")) == 1
    try:
        await first.agent_delta("late")
    except RunClosed:
        pass
    else:
        raise AssertionError("the first holder is not fenced")
    async with nodes[0].emitter(USER).run(run_id="job", takeover=True) as again:
        assert again.run_id != "job"

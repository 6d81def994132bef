"""Publishing, history, operators, messages and tickets over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio

from catenary import (
    Identity,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    WebSocketEvent,
)
from catenary.auth import JwtVerifier
from catenary.errors import ConfigError, LogFull, LogUnavailable
from catenary.eventlog.entry import Entry
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.stream import Stream
from catenary.inbound import Message
from catenary.limits import Limits
from tests.serving.bridges import API_KEY, SECRET, asgi_client, bearer, bridge_on, token
from tests.serving.sockets import until

EVENTS = "/api/users/user_123/events"
KEY = bearer(API_KEY)
MINE = bearer(token())


class Api:
    """A bridge's HTTP API, without a socket."""

    def __init__(self, factory: WebSocketBridgeFactory, http: httpx.AsyncClient) -> None:
        self.factory = factory
        self.http = http

    async def publish(
        self, events: Any, *, status: int = 201, key: str | None = None, path: str = EVENTS
    ) -> Any:
        headers = KEY if key is None else {**KEY, "idempotency-key": key}
        response = await self.http.post(path, json=events, headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    async def events(self, user_id: str = "user_123") -> list[Any]:
        return [event async for event in self.factory.events(user_id)]

    async def types(self) -> list[str]:
        return [event.type for event in await self.events()]

    async def ask(self, message: Any, **options: Any) -> httpx.Response:
        return await self.http.post("/api/messages", json=message, headers=MINE, **options)


@asynccontextmanager
async def api_of(factory: WebSocketBridgeFactory, **options: Any) -> AsyncIterator[Api]:
    options = {"verifier": JwtVerifier(secret=SECRET), "api_key": API_KEY, **options}
    async with asgi_client(factory.asgi_app(**options)) as http:
        yield Api(factory, http)


@pytest_asyncio.fixture
async def api(factory: WebSocketBridgeFactory) -> AsyncIterator[Api]:
    async with api_of(factory) as api:
        yield api


def event(type: str, run_id: str | None = None, **data: Any) -> dict[str, Any]:
    return {"type": type, "data": data} | ({"run_id": run_id} if run_id is not None else {})


# Publishing


async def test_one_event_is_answered_with_its_position(api: Api) -> None:
    """It is in the log then, as it was sent."""
    told = await api.publish(
        {"type": "orders.updated", "thread_id": "t1", "v": 2, "data": {"order": 7}}
    )
    (stored,) = await api.events()
    assert told == {"position": stored.id}
    assert (stored.type, stored.thread_id, stored.v) == ("orders.updated", "t1", 2)
    assert (stored.user_id, stored.run_id, stored.data) == ("user_123", None, {"order": 7})


async def test_a_list_is_all_or_nothing(api: Api) -> None:
    """Dense positions in its order; one bad event and none is there."""
    told = await api.publish([event("app.a"), event("app.b"), event("app.c")])
    assert told["positions"] == [stored.id for stored in await api.events()]
    refused = await api.publish([event("app.d"), {"type": "app.e", "data": 7}], status=400)
    assert refused["message"].startswith("event 1: ")
    refused = await api.publish(
        [event("app.d"), event("agent_thinking", "r", thinking="x")], status=409
    )
    assert refused["error"] == "lifecycle"
    assert await api.types() == ["app.a", "app.b", "app.c"]


@pytest.mark.parametrize(
    ("body", "about"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "1 to 500"),
        (b"7", "object"),
        (b"\xff", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b'{"data":{}}', "type"),
        (b'{"type":"app.x","nonsense":1}', "nonsense"),
        (b'{"type":"app.x","data":[]}', "data"),
        (b'{"type":"app x"}', "event type"),
        (b'{"type":"connected"}', "built-in"),
        (b'{"type":"erased"}', "the bridge alone"),
        (b'{"type":"input_requested"}', "the bridge alone"),
        (b'{"type":"app.x","run_id":""}', "run_id"),
        (b'{"type":"app.x","thread_id":"a\\nb"}', "thread_id"),
        (b'{"type":"agent_thinking","data":{"thinking":7}}', "thinking"),
        (b'{"type":"agent_thinking","data":{"thinking":"x","mood":1}}', "mood"),
        (b'{"type":"agent_thinking","v":2,"data":{"thinking":"x"}}', "v is for"),
        (b'{"type":"agent_delta","data":{"delta":"x","part":"song"}}', "part"),
        (b'{"type":"agent_started","run_id":"r","data":{"lease":0}}', "lease"),
        (b'{"type":"agent_started","run_id":"r","data":{"lease":"long"}}', "lease"),
    ],
)
async def test_what_is_wrong_is_said(api: Api, body: bytes, about: str) -> None:
    """400, in words that name the part, and nothing is stored."""
    response = await api.http.post(EVENTS, content=body, headers=KEY)
    assert response.status_code == 400
    assert about in response.json()["message"]
    assert await api.events() == []


async def test_a_run_over_http(api: Api) -> None:
    """It keeps the grammar, takes its names from its start, and folds like any other."""
    start = {**event("agent_started", "r1", task="look"), "agent_name": "scout", "thread_id": "t1"}
    await api.publish(start)
    await api.publish(
        [
            event("agent_thinking", "r1", thinking="where"),
            event(
                "tool_executing", "r1", tool_name="search", tool_call_id="c", tool_input={"q": 1}
            ),
            event("tool_completed", "r1", tool_name="search", tool_call_id="c", success=True),
            event("agent_delta", "r1", delta="he"),
            event("agent_delta", "r1", delta="re"),
            event("progress_update", "r1", percentage=50),
            event("agent_completed", "r1", result={"found": 1}),
        ]
    )
    (state,) = await api.factory.runs("user_123")
    assert (state.status, state.agent_name, state.thread_id) == ("completed", "scout", "t1")
    assert [message.text for message in state.messages] == ["here"]
    stored = await api.events()
    assert {(e.run_id, e.thread_id, e.agent_name) for e in stored} == {("r1", "t1", "scout")}
    assert stored[0].data == {"task": "look", "lease": 300.0}
    assert stored[3].data["duration_ms"] >= 0
    assert (await api.publish(event("agent_delta", "r1", delta="x"), status=409))[
        "error"
    ] == "run_closed"


async def test_deltas_can_be_merged(api: Api) -> None:
    """A reader that is behind gets neighbours as one event."""
    await api.publish(event("agent_started", "r1"))
    await api.publish([event("agent_delta", "r1", delta=text) for text in "abc"])
    async with bridge_on("fast", factory=api.factory) as bridge, bridge.connected() as client:
        delta = (await client.until("live"))[2]
        assert (delta["data"]["delta"], delta["from_seq"], delta["seq"]) == ("abc", 2, 4)


async def test_an_end_closes_the_open_tools_first(api: Api) -> None:
    """Those of earlier requests, and those of its own list."""
    executing = event("tool_executing", "r1", tool_name="one", tool_call_id="c1")
    await api.publish([event("agent_started", "r1"), executing])
    told = await api.publish(
        [
            event("tool_executing", "r1", tool_name="two", tool_call_id="c2"),
            event("agent_error", "r1", code="broken", message="it broke"),
        ]
    )
    assert (await api.types())[2:] == ["tool_executing", *["tool_completed"] * 2, "agent_error"]
    assert [place.partition(":")[2] for place in told["positions"]] == ["3", "6"]
    closed = {e.data["tool_call_id"]: e.data["success"] for e in (await api.events())[3:5]}
    assert closed == {"c1": False, "c2": False}


async def test_events_without_a_run_stand_outside_the_grammar(api: Api) -> None:
    """Built-in types too, in any order."""
    await api.publish([event("agent_completed"), event("agent_thinking", thinking="hm")])
    assert await api.types() == ["agent_completed", "agent_thinking"]
    assert await api.factory.runs("user_123") == []


async def test_a_run_of_a_process_is_not_continued_over_http(api: Api) -> None:
    """Its lifecycle is its holder's; what stands aside may come from anywhere."""
    emitter = api.factory.get_user_emitter(UserWebSocketContext(user_id="user_123", run_id="r1"))
    emitter.agent_started()
    refused = await api.publish(event("agent_delta", "r1", delta="x"), status=409)
    assert refused["error"] == "run_closed"
    await api.publish(event("progress_update", "r1", percentage=1))
    assert await api.types() == ["agent_started", "progress_update"]


async def test_a_run_keeps_to_its_thread(api: Api) -> None:
    """An event of a run cannot stand in another thread, where its readers would miss it."""
    await api.publish({**event("agent_started", "r1"), "thread_id": "t1"})
    wrong = {**event("agent_delta", "r1", delta="x"), "thread_id": "t2"}
    assert "t1" in (await api.publish(wrong, status=400))["message"]


async def test_a_run_whose_producer_falls_silent_is_closed() -> None:
    """After its lease, as producer_lost; what comes late is refused."""
    now = 1_800_000_000.0
    log = MemoryLog(url="memory://?private", clock=lambda: now)
    factory = WebSocketBridgeFactory(log=log, run_drain_timeout=0.1)
    async with factory, api_of(factory) as api:
        await api.publish(event("agent_started", "r1", lease=60))
        now += 59
        await log.sweep()
        await api.publish(event("agent_thinking", "r1", thinking="still here"))
        now += 61
        await log.sweep()
        assert (await api.events())[-1].data["code"] == "producer_lost"
        late = await api.publish(event("agent_delta", "r1", delta="x"), status=409)
        assert late["error"] == "run_closed"


async def test_answers_list_the_runs_that_someone_cancelled(api: Api) -> None:
    """So that a producer without a connection learns of it."""
    await api.publish([event("agent_started", "r1"), event("agent_started", "r2")])
    await api.http.post("/api/runs/r1/cancel", headers=MINE, json={"reason": "enough"})
    told = await api.publish(
        [event("agent_thinking", "r1", thinking="x"), event("agent_thinking", "r2", thinking="y")]
    )
    assert told["cancelled"] == ["r1"]
    assert "cancelled" not in await api.publish(event("agent_cancelled", "r1", reason="enough"))


async def test_an_idempotency_key_makes_a_repeat_safe(api: Api) -> None:
    """The same positions come again, of lists and ends too; other content is refused."""
    names = {"tool_name": "s", "tool_call_id": "c"}
    begin = [event("agent_started", "r1"), event("tool_executing", "r1", **names)]
    end = event("tool_completed", "r1", success=True, **names)
    failed = event("agent_error", "r2", code="c", message="m")
    whole = [event("agent_started", "r2"), event("tool_executing", "r2", **names), failed]
    bodies = {"k1": event("app.x", a=1), "k2": begin, "k3": end, "k4": whole}
    for key, body in bodies.items():
        first = await api.publish(body, key=key)
        assert await api.publish(body, key=key) == first
    assert len(await api.events()) == 8
    conflict = await api.publish(event("app.x", a=2), key="k1", status=409)
    assert conflict["error"] == "idempotency_conflict"
    response = await api.http.post(
        EVENTS, json=event("app.x"), headers={**KEY, "idempotency-key": ""}
    )
    assert response.status_code == 400


async def test_secrets_do_not_reach_the_log(api: Api) -> None:
    """As from an emitter: in what agents and tools pass along."""
    await api.publish(
        [
            event("agent_started", "r1", task={"api_key": "s3cret"}),
            event("tool_executing", "r1", tool_name="t", tool_call_id="c",
                  tool_input={"headers": {"authorization": "s3cret"}, "max_tokens": 5}),
        ]
    )  # fmt: skip
    stored = await api.events()
    assert "s3cret" not in str(stored)
    assert stored[1].data["tool_input"]["max_tokens"] == 5


async def test_too_much_is_413() -> None:
    """One event over the limit, a declared body over it, and one that only grows over it."""
    factory = WebSocketBridgeFactory(log="memory://?private", data_limit_bytes=1000)
    async with factory, api_of(factory) as api:
        huge = [event("app.x"), event("app.x", text="x" * 1000)]
        assert (await api.publish(huge, status=413))["message"].startswith("event 1: ")
        body = b'{"type":"app.x","data":{"text":"' + b"x" * 5_000_000 + b'"}}'

        async def pieces() -> AsyncIterator[bytes]:
            yield body[:3_000_000]
            yield body[3_000_000:]

        for content in (body, pieces()):
            response = await api.http.post(EVENTS, content=content, headers=KEY)
            assert (response.status_code, response.json()["error"]) == (413, "too_large")
        assert await api.events() == []


async def test_only_the_api_key_publishes(api: Api) -> None:
    """Not nothing, not another key, not a user's own token; without a key nobody."""
    for headers in ({}, bearer("another-key-of-this-kind"), MINE, {"authorization": API_KEY}):
        response = await api.http.post(EVENTS, json=event("app.x"), headers=headers)
        assert response.status_code == 401
    async with api_of(api.factory, api_key=None) as keyless:
        response = await keyless.http.post(EVENTS, json=event("app.x"), headers=bearer(""))
        assert response.status_code == 403
    assert await api.events() == []


async def test_a_key_can_be_replaced_without_a_pause(factory: WebSocketBridgeFactory) -> None:
    """Several count at once; a weak one is refused at the start."""
    async with api_of(factory, api_key=[API_KEY, "the-next-key-of-this-server"]) as api:
        await api.publish(event("app.x"))
        headers = bearer("the-next-key-of-this-server")
        assert (
            await api.http.post(EVENTS, json=event("app.x"), headers=headers)
        ).status_code == 201
    with pytest.raises(ConfigError, match="at least 16"):
        factory.asgi_app(api_key="short")


async def test_any_user_id_can_be_named(api: Api) -> None:
    """Slashes and other letters too; an id that is none is refused."""
    for user_id, path in (("org/user 7", "org%2Fuser%207"), ("müller", "m%C3%BCller")):
        await api.publish(event("app.x"), path=f"/api/users/{path}/events")
        assert [e.user_id for e in await api.events(user_id)] == [user_id]
    await api.publish(event("app.x"), path=f"/api/users/{'u' * 257}/events", status=400)


async def test_a_log_of_its_own_can_be_named(api: Api) -> None:
    """The user stays on the event; the log is the one that was asked for."""
    await api.publish(event("app.x"), path=f"{EVENTS}?log=conversation:42")
    (stored,) = await api.events("conversation:42")
    assert stored.user_id == "user_123"
    assert await api.events() == []


class StuckLog(MemoryLog):
    """A log that accepts and never commits, or refuses."""

    def __init__(self) -> None:
        super().__init__(url="memory://?private")
        self.refuses: Exception | None = None

    def append_all(self, stream: Stream, entries: Sequence[Entry]) -> list[Receipt]:
        if self.refuses is not None:
            raise self.refuses
        return [Receipt() for _ in entries]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (LogFull("user_123", 9, 8, "disk /var/lib is full"), "log_full"),
        (LogUnavailable("/var/lib/events.db is away"), "log_unavailable"),
    ],
)
async def test_a_log_that_cannot_is_503(error: Exception, word: str) -> None:
    """With when to come back, and without what is nobody's business."""
    log = StuckLog()
    log.refuses = error
    async with WebSocketBridgeFactory(log=log) as factory, api_of(factory) as api:
        response = await api.http.post(EVENTS, json=event("app.x"), headers=KEY)
    assert (response.status_code, response.json()["error"]) == (503, word)
    assert response.headers["retry-after"] == "1"
    assert "/var" not in response.text


async def test_an_unknown_outcome_is_said() -> None:
    """When the log does not commit in time; a repeat with the key is safe."""
    factory = WebSocketBridgeFactory(log=StuckLog())
    async with factory, api_of(factory, commit_timeout=0.05) as api:
        response = await api.http.post(EVENTS, json=event("app.x"), headers=KEY)
    assert (response.status_code, response.json()["error"]) == (503, "not_committed")
    assert "Idempotency-Key" in response.json()["message"]
    assert response.headers["retry-after"]


async def test_while_draining_runs_end_and_none_begin(api: Api) -> None:
    """What was begun may be finished; before the start nothing is taken."""
    await api.publish(event("agent_started", "r1"))
    await api.factory.drain(0)
    await api.publish(event("agent_completed", "r1"))
    assert (await api.publish(event("agent_started", "r2"), status=503))["error"] == "not_ready"
    async with api_of(WebSocketBridgeFactory(log="memory://?private")) as unstarted:
        await unstarted.publish(event("app.x"), status=503)


# History


async def test_history_in_pages_with_the_place_to_go_on(api: Api) -> None:
    """Page by page everything once; then the place to connect from."""
    await api.publish([event("app.x", n=n) for n in range(5)])
    seen: list[int] = []
    after, more = "start", True
    while more:
        page = (
            await api.http.get(EVENTS, params={"after": after, "limit": 2}, headers=MINE)
        ).json()
        assert len(page["events"]) <= 2
        seen += [e["data"]["n"] for e in page["events"]]
        after, more = page["position"], page["more"]
    assert seen == [0, 1, 2, 3, 4]
    assert after == str(await api.factory.log.head("user_123"))


async def test_history_tells_a_gap_and_filters_threads(api: Api) -> None:
    """As a connection would."""
    for thread_id in ("t1", "t2"):
        await api.publish({**event("app.x"), "thread_id": thread_id})
    answer = await api.http.get(f"{EVENTS}?after=zz:7&thread_id=t2", headers=KEY)
    page = answer.json()
    assert [e["seq"] for e in page["events"]] == [2]
    assert page["gap"]["reason"] == "epoch"
    assert page["gap"]["after"] == "zz:7"


async def test_who_may_read(api: Api) -> None:
    """The API key, or oneself; others are told nothing."""
    await api.publish(event("app.x"), path="/api/users/user_456/events")
    for path in ("events", "runs"):
        url = f"/api/users/user_456/{path}"
        assert (await api.http.get(url)).status_code == 401
        existing = await api.http.get(url, headers=MINE)
        missing = await api.http.get(f"/api/users/nobody/{path}", headers=MINE)
        assert existing.status_code == missing.status_code == 403
        assert existing.text == missing.text
        assert (await api.http.get(url, headers=KEY)).status_code == 200
        own = await api.http.get(url, headers=bearer(token("user_456")))
        assert own.status_code == 200


@pytest.mark.parametrize("query", ["after=x", "limit=0", "limit=501", "limit=-1", "limit=1e3"])
async def test_a_wrong_parameter_is_400(api: Api, query: str) -> None:
    """With what it should be."""
    response = await api.http.get(f"{EVENTS}?{query}", headers=KEY)
    assert (response.status_code, response.json()["error"]) == (400, "bad_request")


async def test_runs_are_folded(api: Api) -> None:
    """Those of all threads, or of one."""
    for run_id, thread_id in (("r1", "t1"), ("r2", "t2")):
        await api.publish({**event("agent_started", run_id), "thread_id": thread_id})
    url = "/api/users/user_123/runs"
    runs = (await api.http.get(url, headers=MINE)).json()["runs"]
    assert [(run["run_id"], run["status"]) for run in runs] == [
        ("r1", "running"),
        ("r2", "running"),
    ]
    (run,) = (await api.http.get(f"{url}?thread_id=t2", headers=MINE)).json()["runs"]
    assert run["run_id"] == "r2"


# Operators


async def cancel(api: Api, run_id: str, headers: dict[str, str], **body: Any) -> tuple[int, Any]:
    response = await api.http.post(f"/api/runs/{run_id}/cancel", headers=headers, json=body)
    return response.status_code, response.json()


async def test_cancelling_a_run_over_http(api: Api) -> None:
    """By the key wherever it is, by its user if it is theirs; twice says how it is."""
    await api.publish(event("agent_started", "r1"))
    assert (await cancel(api, "r1", bearer(token("user_456"))))[0] == 404
    assert (await cancel(api, "r1", bearer(token("user_456")), user_id="user_123"))[0] == 403
    assert (await cancel(api, "r1", {}))[0] == 401
    assert (await cancel(api, "none", KEY))[0] == 404
    assert await cancel(api, "r1", KEY) == (200, {"run_id": "r1", "already_ended": False})
    await api.publish(event("agent_cancelled", "r1"))
    assert await cancel(api, "r1", MINE) == (200, {"run_id": "r1", "already_ended": True})
    await api.publish(event("agent_started", "r1"), path="/api/users/user_456/events")
    assert (await cancel(api, "r1", KEY))[0] == 409
    assert (await cancel(api, "r1", KEY, user_id="user_456"))[0] == 200


async def test_erasing(api: Api) -> None:
    """One thread or all of a user; what is told is how many events."""
    for thread_id in ("t1", "t1", "t2"):
        await api.publish({**event("app.x"), "thread_id": thread_id})
    url = "/api/users/user_123/erase"
    assert (await api.http.post(url, headers=MINE)).status_code == 401
    assert (await api.http.post(url, headers=KEY, json={"thread_id": "t1"})).json() == {"erased": 2}
    assert (await api.http.post(url, headers=KEY)).json()["erased"] >= 1
    assert await api.types() == ["erased"]


async def test_inspecting_and_disconnecting() -> None:
    """Open runs, connections and handlers, of a user, a run, a thread or the node."""
    async with bridge_on("fast") as bridge, bridge.http(headers=KEY) as http:
        gate = asyncio.Event()

        @bridge.factory.on_message("app.wait")
        async def wait(_message: Message, _emitter: UserWebSocketEmitter) -> None:
            await gate.wait()

        start = {**event("agent_started", "r1"), "thread_id": "t1", "agent_name": "scout"}
        await http.post(EVENTS, json=start)
        await http.post("/api/users/user_456/events", json=event("agent_started", "r2"))
        async with bridge.connected() as client, bridge.connected(user_id="user_456"):
            await client.until("live")
            await client.send({"type": "app.wait", "id": "m1"})
            await until(lambda: bridge.factory.service.in_flight)
            for query in ("?user=user_123", "?run=r1", "?thread=t1"):
                seen = (await http.get(f"/api/inspect{query}")).json()
                (run,) = seen["runs"]
                assert (run["run_id"], run["agent_name"], run["lease"]) == ("r1", "scout", 300)
                assert 0 <= run["silent_for"] <= run["age"] < 10
                (connection,) = seen["connections"]
                assert (connection["user_id"], connection["lag"]) == ("user_123", 0)
                assert {"user_id": "user_123", "message_id": "m1"} in seen["handlers"]
            everything = (await http.get("/api/inspect")).json()
            assert everything["totals"] == {"runs": 2, "connections": 2, "handlers": 1}
            assert everything["ready"] is True
            assert (await http.get("/api/inspect?run=none")).status_code == 404
            gate.set()
            url = "/api/users/user_123/disconnect"
            assert (await http.post(url, json={"session_id": "other"})).json() == {
                "disconnected": 0
            }
            assert (await http.post(url)).json() == {"disconnected": 1}
            assert (await client.end())[0] == 4503
        for path in ("/api/inspect", "/api/inspect?user=user_123"):
            assert (await http.get(path, headers=MINE)).status_code == 401


async def test_a_drain_can_be_asked_for(api: Api) -> None:
    """It is answered at once, and goes on behind the answer."""
    assert (await api.http.post("/api/drain", headers=MINE)).status_code == 401
    response = await api.http.post("/api/drain", headers=KEY, json={"timeout": 0})
    assert response.status_code == 202
    await until(lambda: api.factory.is_draining)
    assert (await api.http.get("/readyz")).status_code == 503


# Messages and tickets


async def test_a_message_is_answered_as_on_the_native_wire(api: Api) -> None:
    """Once for each id, also between a connection and this."""
    handled: list[Any] = []

    @api.factory.on_message("app.count")
    async def count(message: Message, _emitter: UserWebSocketEmitter) -> int:
        handled.append((message.identity.user_id, message.thread_id, message.data))
        return len(handled)

    ask = {"type": "app.count", "id": "a", "thread_id": "t1", "data": [1]}
    for _ in range(2):
        response = await api.ask(ask)
        assert (response.status_code, response.json()) == (
            200,
            {"type": "ack", "id": "a", "reply": 1},
        )
    async with bridge_on("fast", factory=api.factory) as bridge, bridge.connected() as client:
        assert (await client.ask(ask))["reply"] == 1
    assert handled == [("user_123", "t1", [1])]


async def test_control_messages_work_too(api: Api) -> None:
    """ping, position and cancel_run; auth belongs to a connection."""
    assert (await api.ask({"type": "ping", "id": 1})).json()["type"] == "pong"
    await api.publish(event("agent_started", "r1"))
    place = str(await api.factory.log.head("user_123"))
    seen = await api.ask({"type": "position", "position": place})
    assert seen.json() == {"type": "position_ok", "position": place}
    assert str(await api.factory.log.seen("user_123")) == place
    beyond = await api.ask({"type": "position", "position": f"{place}0"})
    assert (beyond.status_code, beyond.json()["code"]) == (400, "bad_message")
    cancelled = await api.ask({"type": "cancel_run", "id": "c", "run_id": "r1"})
    assert cancelled.json() == {"type": "ack", "id": "c"}
    renewed = await api.ask({"type": "auth", "token": token()})
    assert (renewed.status_code, renewed.json()["code"]) == (400, "bad_message")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad_json"),
        (b'{"type":"app.x"}', 400, "bad_message"),
        (b'{"type":"ping","data":' + b"[" * 40 + b"]" * 40 + b"}", 400, "bad_message"),
        (json.dumps({"type": "app.x", "id": "1", "data": "x" * 70_000}).encode(), 413, "too_large"),
        (b'{"type":"app.none","id":"1"}', 404, "unknown_type"),
        (b'{"type":"cancel_run","id":"1","run_id":"none"}', 404, "not_found"),
        (b'{"type":"answer","id":"1","request_id":"none"}', 403, "forbidden"),
    ],
)
async def test_an_error_has_its_status(api: Api, body: bytes, status: int, code: str) -> None:
    """And the words of the native wire."""
    response = await api.http.post("/api/messages", content=body, headers=MINE)
    assert response.status_code == status
    assert response.json()["code"] == code


async def test_messages_need_the_users_own_credentials(api: Api) -> None:
    """The API key is no user; a ticket opens streams only; text that is not UTF-8 is refused."""
    for headers, query in (({}, ""), (KEY, ""), ({}, "?ticket=" + "x" * 43)):
        response = await api.http.post(
            f"/api/messages{query}", json={"type": "ping"}, headers=headers
        )
        assert response.status_code == 401
    response = await api.http.post("/api/messages", content=b"\xff", headers=MINE)
    assert (response.status_code, response.json()["error"]) == (400, "bad_json")
    response = await api.http.post("/api/messages", content=b"x" * 1_100_000, headers=MINE)
    assert (response.status_code, response.json()["error"]) == (413, "too_large")


async def test_the_rate_holds_for_all_of_a_users_messages() -> None:
    """429 with Retry-After; another user is not held up; bad ones end no conversation."""
    limits = Limits(messages_burst=3, messages_per_second=0.001, refused_messages=2, bad_messages=1)
    factory = WebSocketBridgeFactory(log="memory://?private", limits=limits)
    async with factory, api_of(factory) as api:
        codes = [(await api.ask({"type": "app.x"})).status_code for _ in range(3)]
        assert codes == [400] * 3
        for _ in range(5):
            refused = await api.ask({"type": "ping"})
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert refused.headers["retry-after"] == "1"
        other = await api.http.post(
            "/api/messages", json={"type": "ping"}, headers=bearer(token("user_456"))
        )
        assert other.status_code == 200


async def test_messages_of_one_thread_stay_in_order(api: Api) -> None:
    """Also when they come in requests of their own."""
    gate = asyncio.Event()
    order: list[str] = []

    @api.factory.on_message("app.wait")
    async def wait(message: Message, _emitter: UserWebSocketEmitter) -> None:
        if message.id == "1":
            await gate.wait()
        order.append(message.id)

    first = asyncio.ensure_future(api.ask({"type": "app.wait", "id": "1", "thread_id": "t"}))
    await until(lambda: api.factory.service.in_flight)
    second = asyncio.ensure_future(api.ask({"type": "app.wait", "id": "2", "thread_id": "t"}))
    assert (await api.ask({"type": "ping"})).status_code == 200
    assert (await api.ask({"type": "app.wait", "id": "3", "thread_id": "u"})).status_code == 200
    gate.set()
    assert [(await task).status_code for task in (first, second)] == [200, 200]
    assert order == ["3", "1", "2"]


async def test_a_message_whose_work_fails_is_answered(api: Api) -> None:
    """A rule of the application that raises leaves nobody waiting."""

    def rule(_identity: Identity, _thread_id: str) -> bool:
        raise RuntimeError("/etc/secret")

    api.factory.service.authorize_thread = rule
    api.factory.on_message("app.x")(lambda _message, _emitter: None)
    response = await api.ask({"type": "app.x", "id": "1", "thread_id": "t"})
    assert (response.status_code, response.json()["code"]) == (500, "handler_failed")
    assert "secret" not in response.text


async def test_tickets(api: Api) -> None:
    """For whom they are is told by the request; for what must be said."""
    response = await api.http.post("/api/tickets", headers=MINE, json={"purpose": "ws"})
    assert response.status_code == 201
    assert response.json()["expires_in"] == 30
    assert response.headers["cache-control"] == "no-store"
    for headers, body, status in (
        ({}, {"purpose": "ws"}, 401),
        (KEY, {"purpose": "ws"}, 401),
        (MINE, {"purpose": "other"}, 400),
        (MINE, {}, 400),
    ):
        refused = await api.http.post("/api/tickets", headers=headers, json=body)
        assert refused.status_code == status


# Errors and other pages


async def test_errors_are_json_whatever_they_are(factory: WebSocketBridgeFactory) -> None:
    """An unknown path, a wrong method, a defect: never a trace."""

    async def broken(_identity: Identity, _log_id: str) -> None:
        raise RuntimeError("/etc/secret")

    factory.authorize_log = broken
    async with api_of(factory) as api:
        for method, path, headers, status, word in (
            ("GET", "/nowhere", {}, 404, "not_found"),
            ("PUT", "/api/drain", KEY, 405, "method_not_allowed"),
            ("GET", EVENTS, MINE, 500, "internal"),
        ):
            response = await api.http.request(method, path, headers=headers)
            assert (response.status_code, response.json()["error"]) == (status, word)
            assert "secret" not in response.text


async def test_pages_of_allowed_origins_may_read_answers(factory: WebSocketBridgeFactory) -> None:
    """Preflights too; another page is refused."""
    page = {"origin": "https://app.example"}
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,idempotency-key",
    }
    async with api_of(factory, allowed_origins=["https://app.example"]) as api:
        preflight = await api.http.options("/api/messages", headers={**page, **asked})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        answer = await api.http.post(
            "/api/messages", json={"type": "ping"}, headers={**MINE, **page}
        )
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        foreign = {"origin": "https://evil.example"}
        refused = await api.http.post(
            "/api/messages", json={"type": "ping"}, headers={**MINE, **foreign}
        )
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers


async def test_a_cookie_needs_the_origin_of_an_allowed_page(
    factory: WebSocketBridgeFactory,
) -> None:
    """A form on a foreign page sends nothing in the user's name."""
    options = {"cookie_name": "session", "allowed_origins": ["https://app.example"]}
    async with api_of(factory, **options) as api:
        cookie = {"cookie": f"session={token()}"}
        for origin, status in (
            (None, 403),
            ("https://evil.example", 403),
            ("https://app.example", 200),
        ):
            headers = cookie | ({"origin": origin} if origin is not None else {})
            response = await api.http.post("/api/messages", json={"type": "ping"}, headers=headers)
            assert response.status_code == status


async def test_the_hook_redacts_also_what_an_end_says_of_open_tools() -> None:
    """The failed tools of a run that ends over HTTP carry the redacted words, not the sent ones."""

    def hide(event: WebSocketEvent) -> WebSocketEvent:
        said = {key: "hidden" if key == "message" else value for key, value in event.data.items()}
        return WebSocketEvent(type=event.type, id=event.id, seq=event.seq, data=said)

    async with (
        WebSocketBridgeFactory(log="memory://?private", redact=hide) as factory,
        api_of(factory) as api,
    ):
        await api.publish(event("agent_started", "r1"))
        await api.publish(
            event("tool_executing", "r1", tool_name="search", tool_call_id="c1", tool_input={})
        )
        await api.publish(
            event("agent_error", "r1", code="x", message="private words", retryable=False)
        )
        stored = await api.events()
    assert [one.type for one in stored[-2:]] == ["tool_completed", "agent_error"]
    assert "private" not in str([one.data for one in stored])

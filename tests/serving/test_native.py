"""The wire of docs/protocol.md from a client's side, on the fast path and on plain ASGI."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from catenary import Identity, Run, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.auth import JwtVerifier
from catenary.errors import CloseCode
from catenary.inbound import HandlerConfig, Message
from catenary.limits import Limits
from catenary.serving.plain import MESSAGE_LIMIT_BYTES
from catenary.transport import StallingTransport
from tests.auth.support import connection
from tests.serving.bridges import PATHS, SECRET, Bridge, bearer, bridge_on, token
from tests.serving.sockets import Peer, until

Served = Callable[..., Any]


@pytest_asyncio.fixture(params=PATHS)
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """Serves bridges with the options of a test, on one of the two paths."""
    async with AsyncExitStack() as stack:

        async def serve(**options: Any) -> Bridge:
            return await stack.enter_async_context(bridge_on(request.param, **options))

        yield serve


@pytest_asyncio.fixture(params=PATHS)
async def bridge(request: pytest.FixtureRequest) -> AsyncIterator[Bridge]:
    async with bridge_on(request.param) as served:
        yield served


def note(emitter: UserWebSocketEmitter, count: int = 1) -> None:
    for number in range(count):
        emitter.custom("app.note", {"number": number})


async def head(bridge: Bridge) -> str:
    return str(await bridge.factory.log.head("user_123"))


# Opening


async def test_connected_the_events_live_and_then_as_they_come(bridge: Bridge) -> None:
    """What was emitted before comes first, then live, then what is emitted now."""
    note(bridge.emitter(), 2)
    async with bridge.connected() as client:
        connected, first, second, live = await client.until("live")
        assert connected["protocol"] == client.socket.subprotocol == "catenary.v1"
        assert connected["user_id"] == "user_123"
        assert connected["replay"] == 2
        assert connected["after"].endswith(":0")
        assert connected["position"] == live["position"] == await head(bridge)
        assert connected["heartbeat_interval"] == 15
        assert connected["max_message_bytes"] == 64 * 1024
        assert [first["seq"], second["seq"]] == [1, 2]
        note(bridge.emitter())
        assert (await client.receive())["seq"] == 3


async def test_a_client_may_leave_the_subprotocol_out(bridge: Bridge) -> None:
    """Then none is answered, and everything works."""
    async with bridge.connected(subprotocols=()) as client:
        assert client.socket.subprotocol is None
        assert (await client.receive())["type"] == "connected"


async def test_a_token_may_stand_in_the_subprotocols(bridge: Bridge) -> None:
    """The server answers with catenary.v1 alone."""
    offered = ("catenary.v1", f"catenary.bearer.{token()}")
    async with bridge.connected(user_id=None, subprotocols=offered) as client:
        assert client.socket.subprotocol == "catenary.v1"
        assert (await client.receive())["user_id"] == "user_123"


async def test_a_ticket_opens_once(bridge: Bridge) -> None:
    """The second use is refused like an unknown one."""
    ticket = await bridge.app.endpoints.tickets.issue(Identity(user_id="user_123"), purpose="ws")
    async with bridge.connected(f"?ticket={ticket}", user_id=None) as client:
        assert (await client.receive())["user_id"] == "user_123"
    code, _ = await bridge.closed_at_once(f"?ticket={ticket}", user_id=None)
    assert code == CloseCode.NOT_AUTHENTICATED


async def test_a_cookie_counts_from_an_allowed_page_only(served: Served) -> None:
    """A foreign page's is HTTP 403 always; a missing origin too."""
    bridge = await served(cookie_name="session", allowed_origins=["https://app.example"])
    cookie = {"cookie": f"session={token()}"}
    allowed = {**cookie, "origin": "https://app.example"}
    async with bridge.connected(user_id=None, headers=allowed) as client:
        assert (await client.receive())["user_id"] == "user_123"
    foreign = {**cookie, "origin": "https://evil.example"}
    for headers in (foreign, cookie):
        status, body, _ = await bridge.refusal(
            user_id=None, headers=headers, subprotocols=("catenary.v1",)
        )
        assert (status, body["error"]) == (403, "forbidden")


# Refusals


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?after=nonsense", 400, CloseCode.PROTOCOL_ERROR),
        ("?after=k3:1&after=k3:2", 400, CloseCode.PROTOCOL_ERROR),
        ("?after=k3:-1", 400, CloseCode.PROTOCOL_ERROR),
        ("?token=abc", 400, CloseCode.PROTOCOL_ERROR),
        ("?log=conversation:42", 403, CloseCode.FORBIDDEN),
        ("?log=user_456", 403, CloseCode.FORBIDDEN),
        ("?ticket=unknown", 400, CloseCode.PROTOCOL_ERROR),
    ],
)
async def test_a_refusal_is_a_status_and_for_browsers_a_code(
    bridge: Bridge, query: str, status: int, code: int
) -> None:
    """Without the subprotocol the status is told, with it the code and a reason."""
    told, body, _ = await bridge.refusal(query)
    assert told == status
    assert set(body) == {"error", "message"}
    closed, reason = await bridge.closed_at_once(query)
    assert closed == code
    assert reason


async def test_a_token_in_the_query_is_answered_with_the_way_to_tickets(bridge: Bridge) -> None:
    """It is refused, and not repeated."""
    secret = token()
    _, body, _ = await bridge.refusal(f"?token={secret}", user_id=None)
    assert "/api/tickets" in body["message"]
    assert secret not in str(body)


async def test_bad_credentials_are_401_or_4501(bridge: Bridge) -> None:
    """Whatever is wrong with them."""
    for bad in (token(ttl=-60), token()[:-2], "nonsense"):
        status, body, headers = await bridge.refusal(user_id=None, headers=bearer(bad))
        assert (status, body["error"]) == (401, "unauthorized")
        assert headers["www-authenticate"] == "Bearer"
        assert bad not in str(body)
        code, _ = await bridge.closed_at_once(user_id=None, headers=bearer(bad))
        assert code == CloseCode.NOT_AUTHENTICATED


async def test_not_ready_and_draining_stay_http_503(bridge: Bridge) -> None:
    """Also for a client that offered the subprotocol; Retry-After says when to come back."""
    await bridge.factory.drain(0)
    status, body, headers = await bridge.refusal(subprotocols=("catenary.v1",))
    assert (status, body["error"]) == (503, "not_ready")
    assert int(headers["retry-after"]) >= 1


async def test_a_plain_get_is_told_to_upgrade(bridge: Bridge) -> None:
    """426, with what to do instead."""
    async with bridge.http() as http:
        response = await http.get("/ws")
    assert response.status_code == 426
    assert response.headers["upgrade"] == "websocket"


async def test_a_log_is_open_to_whom_it_was_granted(served: Served) -> None:
    """A reader reads; writing is forbidden; others are told that there is no such log."""

    def rule(identity: Identity, log_id: str) -> Any:
        granted = {"user_123": "read", "user_456": "write"}
        return granted.get(identity.user_id) if log_id == "conversation:42" else None

    factory = WebSocketBridgeFactory(
        log="memory://?private", authorize_log=rule, run_drain_timeout=0.2
    )
    bridge = await served(factory=factory)
    factory.on_message("user_message")(lambda _message, _emitter: None)
    async with bridge.connected("?log=conversation:42", user_id="user_456") as writer:
        assert (await writer.receive())["log_id"] == "conversation:42"
        ask = {"type": "user_message", "id": "1", "data": {"content": "hello"}}
        assert (await writer.ask(ask))["type"] == "ack"
        async with bridge.connected("?log=conversation:42") as reader:
            messages = await reader.until("live")
            assert messages[1]["data"]["content"] == "hello"
            assert (await reader.ask({**ask, "id": "2"}))["code"] == "forbidden"
            cancel = {"type": "cancel_run", "id": "3", "run_id": "r"}
            assert (await reader.ask(cancel))["code"] == "forbidden"
    status, _, _ = await bridge.refusal("?log=conversation:42", user_id="user_789")
    assert status == 403


# A first message instead of a credential


async def test_the_first_message_may_bring_the_token(bridge: Bridge) -> None:
    """What follows it in the same breath is handled after it."""
    async with bridge.connected("?after=start", user_id=None) as client:
        await client.send({"type": "auth", "token": token()})
        await client.send({"type": "ping", "id": 7})
        connected, *_, pong = await client.until("pong")
        assert connected["type"] == "connected"
        assert connected["user_id"] == "user_123"
        assert pong["id"] == 7
    await until(lambda: bridge.factory.manager.waiting_for_auth == 0)


async def test_another_first_message_or_a_bad_token_is_4501(bridge: Bridge) -> None:
    """And nothing is told of the log."""
    for message in ({"type": "ping"}, {"type": "auth", "token": "nonsense"}):
        async with bridge.connected(user_id=None) as client:
            await client.send(message)
            assert (await client.end())[0] == CloseCode.NOT_AUTHENTICATED
    async with bridge.connected(user_id=None) as client:
        await client.send("{")
        assert (await client.end())[0] == CloseCode.PROTOCOL_ERROR
    await until(lambda: bridge.factory.manager.waiting_for_auth == 0)


async def test_a_first_message_that_never_comes_is_4004(served: Served) -> None:
    """After the deadline, and nothing is left behind."""
    bridge = await served(limits=Limits(handshake_timeout=0.05))
    async with bridge.connected(user_id=None) as client:
        assert (await client.end())[0] == CloseCode.AUTH_TIMEOUT
    await until(lambda: bridge.factory.manager.waiting_for_auth == 0)


async def test_waiting_connections_are_capped(served: Served) -> None:
    """Over the cap it is 429; whoever shows a credential is let in."""
    bridge = await served(limits=Limits(unauthenticated_connections=1))
    async with bridge.connected(user_id=None):
        status, body, headers = await bridge.refusal(user_id=None)
        assert (status, body["error"]) == (429, "too_many")
        assert headers["retry-after"]
        async with bridge.connected() as known:
            assert (await known.receive())["type"] == "connected"


async def test_a_client_that_goes_while_it_is_being_let_in_leaves_nothing() -> None:
    """The rule that grants the log answers when the connection is gone already."""
    asked, gate = asyncio.Event(), asyncio.Event()

    async def rule(_identity: Identity, _log_id: str) -> Any:
        asked.set()
        await gate.wait()
        return "write"

    async def unused(*_: Any) -> Any:
        raise AssertionError("a connection that is taken over uses no ASGI messages")

    transport = StallingTransport()

    def takeover(receiver: Any, *, subprotocol: str | None) -> StallingTransport:
        transport.receiver = receiver
        return transport

    async with WebSocketBridgeFactory(log="memory://?private", authorize_log=rule) as factory:
        app = factory.asgi_app(verifier=JwtVerifier(secret=SECRET))
        scope = {**connection().scope, "extensions": {"catenary.takeover": takeover}}
        await app(scope, unused, unused)
        transport.say(json.dumps({"type": "auth", "token": token()}))
        await asked.wait()
        transport.die()
        gate.set()
        stream = factory.log.stream("user_123")
        await until(lambda: not app.endpoints.native._tasks)
        assert stream.watchers == ()
        assert factory.manager.connection_count == factory.manager.waiting_for_auth == 0
        assert transport.writes == []


# Where to continue


async def test_after_a_position_comes_exactly_the_rest(bridge: Bridge) -> None:
    """Of five events a client that has three gets two."""
    note(bridge.emitter(), 5)
    epoch = (await head(bridge)).partition(":")[0]
    async with bridge.connected(f"?after={epoch}:3") as client:
        messages = await client.until("live")
        assert messages[0]["after"] == f"{epoch}:3"
        assert [message["seq"] for message in messages[1:-1]] == [4, 5]


async def test_the_words_for_a_place(bridge: Bridge) -> None:
    """now brings nothing old, open begins with the oldest open run, start with everything."""
    emitter = bridge.emitter()
    note(emitter, 2)
    for after, seqs in (("now", []), ("open", []), ("start", [1, 2]), ("", [1, 2])):
        async with bridge.connected(f"?after={after}" if after else "") as client:
            messages = await client.until("live")
            assert [message["seq"] for message in messages[1:-1]] == seqs
    emitter.agent_started("researcher")
    note(emitter)
    async with bridge.connected("?after=open") as client:
        assert [m["seq"] for m in (await client.until("live"))[1:-1]] == [3, 4]


async def test_a_position_of_another_epoch_is_a_gap(bridge: Bridge) -> None:
    """And everything that can be had follows it."""
    note(bridge.emitter(), 2)
    async with bridge.connected("?after=zz:7") as client:
        connected, gap, *events, _ = await client.until("live")
        assert connected["after"] == gap["after"] == "zz:7"
        assert gap["type"] == "gap"
        assert gap["reason"] == "epoch"
        assert gap["resumes_at"] == events[0]["id"]
        assert [event["seq"] for event in events] == [1, 2]


async def test_a_position_from_the_future_is_a_gap(bridge: Bridge) -> None:
    """The log has lost something since: a new term begins, and is told."""
    note(bridge.emitter())
    epoch = (await head(bridge)).partition(":")[0]
    async with bridge.connected(f"?after={epoch}:99") as client:
        messages = await client.until("gap")
        assert messages[-1]["reason"] == "future"
        note(bridge.emitter())
        event = next(m for m in await client.until("app.note") if "seq" in m)
        assert not event["id"].startswith(f"{epoch}:")


async def test_another_users_position_shows_nothing_of_theirs(bridge: Bridge) -> None:
    """A place is a place in one's own log."""
    note(bridge.emitter("user_456"), 9)
    theirs = await bridge.factory.log.head("user_456")
    note(bridge.emitter(), 1)
    async with bridge.connected(f"?after={theirs.epoch}:8") as client:
        note(bridge.emitter(), 1)
        messages = await client.until("app.note")
        assert {m["user_id"] for m in messages if "user_id" in m} == {"user_123"}


async def test_a_thread_filter_brings_its_own_events_only(bridge: Bridge) -> None:
    """Threads may be several; the numbers stay the user's; live passes what is skipped."""
    for thread_id in ("t1", "t2", "t3", "t1"):
        note(bridge.emitter(thread_id=thread_id))
    async with bridge.connected("?thread_id=t1&thread_id=t3") as client:
        *_, live = messages = await client.until("live")
        assert [m["seq"] for m in messages if "seq" in m] == [1, 3, 4]
        note(bridge.emitter(thread_id="t2"))
        note(bridge.emitter(thread_id="t3"))
        assert (await client.receive())["seq"] == 6
        assert live["position"].endswith(":4")


async def test_a_thread_that_is_not_granted_does_not_exist(served: Served) -> None:
    """In the query it is refused, in a message it is not found."""
    factory = WebSocketBridgeFactory(
        log="memory://?private",
        authorize_thread=lambda _, thread_id: thread_id != "secret",
        run_drain_timeout=0.2,
    )
    bridge = await served(factory=factory)
    factory.on_message("user_message")(lambda _message, _emitter: None)
    assert (await bridge.refusal("?thread_id=secret"))[0] == 403
    async with bridge.connected() as client:
        ask = {"type": "user_message", "id": "1", "thread_id": "secret", "data": {}}
        assert (await client.ask(ask))["code"] == "not_found"


# Messages and answers


async def test_ping_and_position_are_answered(bridge: Bridge) -> None:
    """A position beyond what was sent is refused, and what was seen can be asked for."""
    note(bridge.emitter())
    async with bridge.connected() as client:
        await client.until("live")
        pong = await client.ask({"type": "ping", "id": "p"})
        assert (pong["type"], pong["id"]) == ("pong", "p")
        assert abs(pong["timestamp"] / 1000 - time.time()) < 5
        place = await head(bridge)
        answer = await client.ask({"type": "position", "position": place})
        assert answer == {"type": "position_ok", "position": place}
        assert str(await bridge.factory.log.seen("user_123")) == place
        beyond = place.partition(":")[0] + ":999"
        for wrong in (beyond, "nonsense"):
            answer = await client.ask({"type": "position", "position": wrong})
            assert answer["code"] == "bad_message"


async def test_a_message_is_handled_once_and_answered_alike(bridge: Bridge) -> None:
    """Sent again, also on another connection, it gets the stored reply."""
    handled: list[str] = []

    @bridge.factory.on_message("app.count")
    async def count(message: Message, _emitter: UserWebSocketEmitter) -> dict[str, Any]:
        handled.append(message.id)
        return {"count": len(handled), "thread": message.thread_id}

    ask = {"type": "app.count", "id": "a", "thread_id": "t1", "data": {"x": 1}}
    async with bridge.connected() as client:
        first = await client.ask(ask)
        assert first == {"type": "ack", "id": "a", "reply": {"count": 1, "thread": "t1"}}
        assert await client.ask(ask) == first
    async with bridge.connected() as client:
        assert await client.ask(ask) == first
        conflict = await client.ask({**ask, "data": {"x": 2}})
        assert (conflict["id"], conflict["code"]) == ("a", "id_conflict")
    async with bridge.connected(user_id="user_456") as client:
        assert (await client.ask(ask))["reply"]["count"] == 2


async def test_a_repeat_during_the_handling_waits_for_the_same_answer(bridge: Bridge) -> None:
    """Two tabs send one id; the handler runs once."""
    gate = asyncio.Event()
    handled: list[str] = []

    @bridge.factory.on_message("app.slow")
    async def slow(message: Message, _emitter: UserWebSocketEmitter) -> str:
        handled.append(message.id)
        await gate.wait()
        return "done"

    ask = {"type": "app.slow", "id": "a", "data": {}}
    async with bridge.connected() as one, bridge.connected() as two:
        await one.send(ask)
        await until(lambda: handled)
        await two.send(ask)
        await two.send({"type": "ping"})
        assert (await two.answer())["type"] == "pong"
        gate.set()
        assert await one.answer() == await two.answer() == {
            "type": "ack", "id": "a", "reply": "done",
        }  # fmt: skip
    assert handled == ["a"]


async def test_the_other_tab_sees_the_question(bridge: Bridge) -> None:
    """An accepted user_message is an event in the log."""
    bridge.factory.on_message("user_message")(lambda _message, _emitter: None)
    async with bridge.connected() as one, bridge.connected() as two:
        await two.until("live")
        ask = {"type": "user_message", "id": "m", "thread_id": "t1", "data": {"content": "why?"}}
        assert (await one.ask(ask))["type"] == "ack"
        seen = await two.receive()
        assert seen["type"] == "user_message"
        assert seen["thread_id"] == "t1"
        assert seen["data"]["content"] == "why?"
        assert seen["data"]["client_message_id"] == "m"


async def test_cancelling_a_run(bridge: Bridge) -> None:
    """Acknowledged once it is stored; an ended run says so; others' runs do not exist."""

    async def wait_for_ever(_run: Any) -> None:
        await asyncio.Event().wait()

    handle = bridge.emitter().start_run(wait_for_ever)
    cancel = {"type": "cancel_run", "run_id": handle.run_id, "reason": "enough"}
    async with bridge.connected(user_id="user_456") as stranger:
        assert (await stranger.ask({**cancel, "id": "1"}))["code"] == "not_found"
    async with bridge.connected() as client:
        await client.until("live")
        await client.send({**cancel, "id": "2"})
        messages = [await client.receive(), await client.receive()]
        assert {"type": "ack", "id": "2"} in messages
        end = next(m for m in messages if "seq" in m)
        assert end["type"] == "agent_cancelled"
        assert end["data"]["reason"] == "enough"
        await handle.wait()
        answer = await client.ask({**cancel, "id": "3"})
        assert answer == {"type": "ack", "id": "3", "already_ended": True}


async def test_answering_what_a_run_asked(bridge: Bridge) -> None:
    """The first answer is acknowledged, also when it is repeated; the next gets the first."""
    emitter = bridge.emitter(thread_id="t1")

    async def agent(run: Run) -> None:
        run.set_result(await run.ask("Which?"))

    async with bridge.connected() as client, bridge.connected(user_id="user_456") as stranger:
        await client.until("live")
        handle = emitter.start_run(agent)
        *_, asked = await client.until("input_requested")
        answer = {"type": "answer", "request_id": asked["data"]["request_id"], "answer": [1]}
        assert (await stranger.ask({**answer, "id": "1"}))["code"] == "forbidden"
        await client.send({**answer, "id": "2"})
        told = await client.until("agent_completed")
        _, resolved, ended = [asked, *(message for message in told if "seq" in message)]
        assert resolved["data"]["answer"] == ended["data"]["result"] == [1]
        await handle.wait()
        assert await client.ask({**answer, "id": "2"}) == {"type": "ack", "id": "2"}
        second = await client.ask({**answer, "id": "3", "answer": "other"})
        assert second == {"type": "ack", "id": "3", "already_answered": True, "answer": [1]}
        assert (await client.ask({**answer, "id": "4", "request_id": "no"}))["code"] == "forbidden"


async def test_renewing_the_credential(bridge: Bridge) -> None:
    """auth says until when; a bad token changes nothing; another user's closes with 4503."""
    async with bridge.connected() as client:
        fresh = token(ttl=7200)
        answer = await client.ask({"type": "auth", "token": fresh})
        assert answer["type"] == "auth_ok"
        assert abs(answer["expires_at"] / 1000 - time.time() - 7200) < 10
        assert (await client.ask({"type": "auth", "token": "bad"}))["code"] == "forbidden"
        assert (await client.ask({"type": "ping"}))["type"] == "pong"
        await client.send({"type": "auth", "token": token("user_456")})
        assert (await client.end())[0] == CloseCode.FORBIDDEN


async def test_a_connection_ends_with_its_token(served: Served) -> None:
    """With 4001, once the grace has passed; a renewed one stays."""
    bridge = await served(limits=Limits(heartbeat_interval=0.2, credential_grace=0))
    short = bearer(token(ttl=2))
    async with (
        bridge.connected(user_id=None, headers=short) as client,
        bridge.connected(user_id=None, headers=short) as renewed,
    ):
        await renewed.send({"type": "auth", "token": token()})
        assert (await client.end())[0] == CloseCode.TOKEN_EXPIRED
        assert (await renewed.ask({"type": "ping"}))["type"] == "auth_ok"


async def test_a_handler_that_fails_or_hangs_is_answered(served: Served) -> None:
    """With an error that tells nothing of it; the connection goes on."""
    factory = WebSocketBridgeFactory(
        log="memory://?private", handlers=HandlerConfig(timeout=0.05), run_drain_timeout=0.2
    )
    bridge = await served(factory=factory)

    @factory.on_message("app.fail")
    async def fail(_message: Message, _emitter: UserWebSocketEmitter) -> None:
        raise RuntimeError("/etc/secret")

    @factory.on_message("app.hang")
    async def hang(_message: Message, _emitter: UserWebSocketEmitter) -> None:
        await asyncio.Event().wait()

    async with bridge.connected() as client:
        failed = await client.ask({"type": "app.fail", "id": "1", "data": {}})
        assert failed["code"] == "handler_failed"
        assert "secret" not in str(failed)
        assert (await client.ask({"type": "app.hang", "id": "2"}))["code"] == "handler_timeout"
        assert (await client.ask({"type": "app.none", "id": "3"}))["code"] == "unknown_type"
        assert (await client.ask({"type": "ping"}))["type"] == "pong"


async def test_control_messages_never_wait_behind_a_handler(bridge: Bridge) -> None:
    """A message of the same thread does; one of another thread does not."""
    gate = asyncio.Event()

    @bridge.factory.on_message("app.wait")
    async def wait(message: Message, _emitter: UserWebSocketEmitter) -> None:
        if message.data == "first":
            await gate.wait()

    async with bridge.connected() as client:
        await client.send({"type": "app.wait", "id": "1", "thread_id": "t1", "data": "first"})
        await client.send({"type": "app.wait", "id": "2", "thread_id": "t1", "data": "second"})
        await client.send({"type": "app.wait", "id": "3", "thread_id": "t2", "data": "third"})
        await client.send({"type": "cancel_run", "id": "4", "run_id": "none"})
        await client.send({"type": "answer", "id": "5", "request_id": "x", "answer": 1})
        early = {(await client.answer())["id"] for _ in range(3)}
        assert early == {"3", "4", "5"}
        gate.set()
        assert [(await client.answer())["id"] for _ in range(2)] == ["1", "2"]


# Limits


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "bad_json"),
        ("[]", "bad_message"),
        ("{}", "bad_message"),
        ('{"type":7}', "bad_message"),
        (b"\x00", "bad_message"),
        ('{"type":"app.x"}', "bad_message"),
        ('{"type":"app.x","id":""}', "bad_message"),
        (json.dumps({"type": "app.x", "id": "i" * 129}), "bad_message"),
        ('{"type":"cancel_run","id":"1"}', "bad_message"),
        ('{"type":"answer","id":"1"}', "bad_message"),
        ('{"type":"auth"}', "bad_message"),
        ('{"type":"position"}', "bad_message"),
        ('{"type":"answer","id":"1","request_id":"r"}', "forbidden"),
        ('{"type":"ping","data":' + "[" * 32 + "]" * 32 + "}", "bad_message"),
        (json.dumps({"type": "app.x", "id": "1", "data": "x" * 70_000}), "too_large"),
    ],
)
async def test_a_bad_message_is_answered_and_the_connection_goes_on(
    bridge: Bridge, message: str | bytes, code: str
) -> None:
    """Every message gets an answer."""
    async with bridge.connected() as client:
        answer = await client.ask(message)
        assert (answer["type"], answer["code"]) == ("error", code)
        assert (await client.ask({"type": "ping"}))["type"] == "pong"


async def test_too_many_bad_messages_are_4500(served: Served) -> None:
    """The last one is named in the reason."""
    bridge = await served(limits=Limits(bad_messages=3))
    async with bridge.connected() as client:
        for _ in range(4):
            await client.send("{")
        assert (await client.end())[0] == CloseCode.PROTOCOL_ERROR


async def test_a_message_over_one_mebibyte_is_1009(bridge: Bridge) -> None:
    """Counted in bytes, whatever the characters."""
    for huge in ("x" * (MESSAGE_LIMIT_BYTES + 1), "é" * (MESSAGE_LIMIT_BYTES // 2 + 1)):
        async with bridge.connected() as client:
            await client.receive()
            await client.send(huge)
            assert (await client.end())[0] == CloseCode.TOO_BIG


async def test_the_rate_is_limited_and_then_4002(served: Served) -> None:
    """Messages over it are answered as such; whoever goes on and on is closed."""
    limits = Limits(messages_burst=3, messages_per_second=0.001, refused_messages=5)
    bridge = await served(limits=limits)
    async with bridge.connected() as client:
        for _ in range(3):
            assert (await client.ask({"type": "ping"}))["type"] == "pong"
        for _ in range(5):
            assert (await client.ask({"type": "ping"}))["code"] == "rate_limited"
        await client.send({"type": "ping"})
        assert (await client.end())[0] == CloseCode.RATE_LIMITED


async def test_waiting_messages_are_limited(served: Served) -> None:
    """One over the limit is refused at once; the others are answered in their time."""
    bridge: Bridge = await served(limits=Limits(commands_waiting=2))
    gate = asyncio.Event()

    @bridge.factory.on_message("app.wait")
    async def wait(_message: Message, _emitter: UserWebSocketEmitter) -> None:
        await gate.wait()

    async with bridge.connected() as client:
        for number in range(3):
            await client.send({"type": "app.wait", "id": str(number)})
        refused = await client.answer()
        assert (refused["id"], refused["code"]) == ("2", "rate_limited")
        gate.set()
        assert [(await client.answer())["id"] for _ in range(2)] == ["0", "1"]


async def test_over_the_limit_the_longest_silent_connection_is_4505(served: Served) -> None:
    """The new one is served; other users' connections are untouched."""
    bridge = await served(limits=Limits(connections_per_user=2))
    async with (
        bridge.connected(user_id="user_456") as other,
        bridge.connected() as one,
        bridge.connected() as two,
    ):
        await one.receive()
        await two.receive()
        async with bridge.connected() as three:
            assert (await three.receive())["type"] == "connected"
            ended = asyncio.ensure_future(one.end())
            also = asyncio.ensure_future(two.end())
            done, open_ = await asyncio.wait(
                {ended, also}, timeout=2, return_when=asyncio.FIRST_COMPLETED
            )
            assert [task.result()[0] for task in done] == [CloseCode.TOO_MANY_CONNECTIONS]
            for task in open_:
                task.cancel()
            assert (await other.ask({"type": "ping"}))["type"] == "pong"


# Time


async def test_a_heartbeat_after_an_interval_of_silence(served: Served) -> None:
    """It carries the place of this connection."""
    bridge = await served(limits=Limits(heartbeat_interval=0.1))
    note(bridge.emitter())
    async with bridge.connected() as client:
        await client.until("live")
        heartbeat = await client.receive()
        assert heartbeat["type"] == "heartbeat"
        assert heartbeat["position"] == await head(bridge)
        assert heartbeat["timestamp"] > 1_700_000_000_000
        assert (await client.receive())["type"] == "heartbeat"


async def test_a_peer_that_takes_nothing_is_dropped(served: Served) -> None:
    """2.5 intervals after its socket took the last byte; nothing of it is left."""
    bridge = await served(limits=Limits(heartbeat_interval=0.1))
    manager = bridge.factory.manager
    authorization = (b"Authorization", f"Bearer {token()}".encode())
    await Peer.open(bridge.server, "/ws", headers=[authorization], receive_buffer=4096)
    emitter = bridge.emitter()
    for _ in range(100):
        emitter.custom("app.big", {"text": "x" * 100_000})
    await until(lambda: manager.connection_count == 0)
    assert manager.counters.events_delivered < 100


async def test_a_drain_says_closing_and_closes_with_1012(bridge: Bridge) -> None:
    """The seconds carry jitter."""
    async with bridge.connected() as client:
        await client.until("live")
        await bridge.factory.drain(0)
        closing = await client.receive()
        assert closing["type"] == "closing"
        assert closing["reason"] == "draining"
        assert 0 < closing["reconnect_after"] <= 2
        assert (await client.end())[0] == CloseCode.RESTARTING


async def test_losing_the_connection_cancels_nothing(bridge: Bridge) -> None:
    """The agent goes on, and the next connection has what it said meanwhile."""
    gate = asyncio.Event()

    async def agent(run: Any) -> str:
        await gate.wait()
        run.delta("still here")
        return "done"

    async with bridge.connected() as client:
        await client.until("live")
        handle = bridge.emitter().start_run(agent)
        client.socket.transport.abort()
    gate.set()
    await handle.wait()
    async with bridge.connected() as client:
        types = [message["type"] for message in await client.until("live")]
        assert types[1:-1] == ["agent_started", "agent_delta", "agent_completed"]


async def test_ended_connections_leave_nothing(bridge: Bridge) -> None:
    """No connection, no reader of the log, however they ended."""
    manager = bridge.factory.manager
    for number in range(10):
        async with bridge.connected() as client:
            await client.receive()
            if number % 2:
                client.socket.transport.abort()
    await until(lambda: manager.connection_count == 0)
    assert bridge.factory.log.stream("user_123").watchers == ()

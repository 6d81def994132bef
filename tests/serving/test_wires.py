"""The wires of other clients, over real sockets; with their own packages in tests/frontends."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from ag_ui_validate.pytest_plugin import validate_agui
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.auth import Identity
from catenary.errors import ConfigError
from catenary.inbound import Message
from catenary.integrations.fastapi import catenary_router
from catenary.limits import Limits
from tests.serving.bridges import PATHS, Bridge, bearer, bridge_on, token
from tests.serving.sockets import PATIENCE, serving, until

WIRES = ("ai-sdk", "ag-ui", "tanstack")


def answering(factory: WebSocketBridgeFactory) -> None:
    """Let an agent do what the user's message says."""

    async def agent(run: Run, words: str) -> None:
        for word in words.split():
            kind, _, count = word.partition(":")
            if kind == "say":
                for piece in range(int(count)):
                    run.delta(f"{piece} ")
            elif kind == "big":
                for _ in range(int(count)):
                    run.delta("x" * 1000)
                    await asyncio.sleep(0)
            elif kind == "wait":
                await run.wait_cancelled()

    @factory.on_message("user_message")
    async def asked(message: Message, emitter: UserWebSocketEmitter) -> None:
        if message.data["content"] == "refuse":
            raise ValueError("private")
        if message.data["content"] != "nobody":
            emitter.start_run(agent, message.data["content"])


@pytest_asyncio.fixture(params=PATHS)
async def bridge(request: pytest.FixtureRequest) -> AsyncIterator[Bridge]:
    limits = Limits(heartbeat_interval=0.5, start_patience=1)
    async with bridge_on(request.param, limits=limits, wires=WIRES) as made:
        answering(made.factory)
        yield made


def chat(text: str, chat_id: str = "t1", message_id: str = "m1") -> dict[str, Any]:
    parts = [{"type": "text", "text": text}]
    return {"id": chat_id, "messages": [{"id": message_id, "role": "user", "parts": parts}]}


def run_input(text: str, thread_id: str = "t1", run_id: str = "run-a") -> dict[str, Any]:
    messages = [{"id": "m1", "role": "user", "content": text}]
    return {"threadId": thread_id, "runId": run_id, "messages": messages}


def client(bridge: Bridge, user_id: str = "user_123") -> httpx.AsyncClient:
    return bridge.http(headers=bearer(token(user_id)))


def frames_in(body: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_in(frames: list[dict[str, Any]]) -> str:
    return "".join(frame["delta"] for frame in frames if "delta" in frame)


def opened(bridge: Bridge, path: str, **options: Any) -> connect:
    options = {"additional_headers": bearer(token()), **options}
    url = f"ws://127.0.0.1:{bridge.server.port}{path}"
    return connect(url, proxy=None, open_timeout=PATIENCE, max_size=None, **options)


async def received(ws: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        message: dict[str, Any] = json.loads(await ws.recv())
    return message


async def closed(ws: ClientConnection) -> int | None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await ws.recv()
            except ConnectionClosed:
                return ws.close_code


# What every wire gives


async def test_a_turn_over_http(bridge: Bridge) -> None:
    """The protocol's headers, all text once, and the end that its client waits for."""
    async with client(bridge) as asker:
        for path, asked in (("/ai-sdk", chat("say:5")), ("/ag-ui", run_input("say:5", "t2"))):
            answer = await asker.post(path, json=asked)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-accel-buffering"] == "no"
            frames = frames_in(answer.text)
            assert text_in(frames) == "0 1 2 3 4 "
            if path == "/ai-sdk":
                assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
                assert answer.text.endswith("data: [DONE]\n\n")
                assert frames[0]["messageId"] == (await bridge.factory.runs("user_123"))[0].run_id
            else:
                assert validate_agui(frames).summary.errors == 0


async def test_one_handler_serves_every_wire(bridge: Bridge) -> None:
    """It gets the text as content, whichever client asked; every tab sees the question."""
    got: list[Any] = []
    bridge.factory.service.register("app.other", lambda *_: None)
    async with client(bridge) as asker, bridge.connected() as native:
        await native.until("live")
        await asker.post("/ai-sdk", json=chat("say:1"))
        await asker.post("/ag-ui", json=run_input("say:1", "t2"))
        async with opened(bridge, "/ws/tanstack") as ws:
            await ws.send(json.dumps(run_input("say:1", "t3", "run-b")))
            while (await received(ws))["chunk"]["type"] != "RUN_FINISHED":
                pass
        await native.send({"type": "user_message", "id": "1", "thread_id": "t4", "data": "say:1"})
        while len(got) < 4:
            message = await native.receive()
            if message["type"] == "user_message":
                got.append((message["thread_id"], message["data"]["content"]))
    assert got == [("t1", "say:1"), ("t2", "say:1"), ("t3", "say:1"), ("t4", "say:1")]


async def test_two_messages_at_once_in_one_chat_begin_one_turn(bridge: Bridge) -> None:
    """The other is refused, whichever that is."""
    async with client(bridge) as asker:

        async def ask(number: int) -> int:
            asked = chat("say:1 wait", message_id=f"m{number}")
            async with asker.stream("POST", "/ai-sdk", json=asked) as stream:
                return stream.status_code

        assert sorted(await asyncio.gather(*map(ask, range(4)))) == [200, 409, 409, 409]
        assert len(await bridge.factory.runs("user_123")) == 1


async def test_a_message_that_was_refused_leaves_no_turn(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that is loaded then has nothing to wait for; the former turn is the latest."""
    async with client(bridge) as asker:
        answer = await asker.post("/ai-sdk", json=chat("refuse"))
        assert (answer.status_code, answer.json()["error"]) == (500, "handler_failed")
        assert "private" not in answer.text
        assert (await asker.get("/ai-sdk/t1/stream")).status_code == 204
        await asker.post("/ai-sdk", json=chat("say:2", message_id="m2"))
        await asker.post("/ai-sdk", json=chat("refuse", message_id="m3"))
        assert text_in(frames_in((await asker.get("/ai-sdk/t1/stream")).text)) == "0 1 "
    assert "private" in caplog.text


async def test_a_question_of_a_sub_agent_holds_up_the_turn(bridge: Bridge) -> None:
    """The user answers it as any other, also of a run that no wire began."""
    emitter = bridge.emitter()

    async def agent(run: Run) -> None:
        async with run.child(agent_name="helper") as helper:
            run.delta(f"You said {await helper.ask('Which?')}")

    handle = emitter.start_run(agent)
    await until(lambda: emitter.stream.head == 3)
    async with client(bridge) as asker:
        frames = frames_in((await asker.get("/ai-sdk/t1/stream")).text)
        (call,) = [frame for frame in frames if frame["type"] == "tool-input-available"]
        assert frames[-1] == {"type": "finish", "finishReason": "tool-calls"}
        part = {"type": "dynamic-tool", "toolName": "ask_user", "state": "output-available"}
        part |= {"toolCallId": call["toolCallId"], "output": "blue"}
        asked = {"id": "t1", "messages": [{"id": "r", "role": "assistant", "parts": [part]}]}
        rest = await asker.post("/ai-sdk", json=asked)
        assert frames_in(rest.text)[0] == {"type": "start", "messageId": handle.run_id}
        assert text_in(frames_in(rest.text)) == "You said blue"
    await handle.wait()


async def test_a_thread_that_is_not_granted_is_refused_on_every_wire(bridge: Bridge) -> None:
    """Before anything is done, as if there were no such thread."""
    bridge.factory.service.authorize_thread = lambda _, thread_id: thread_id != "t1"
    async with client(bridge) as asker:
        assert (await asker.post("/ai-sdk", json=chat("say:1"))).status_code == 404
        assert (await asker.get("/ai-sdk/t1/stream")).status_code == 204
        assert (await asker.post("/ai-sdk/t1/stop")).json() == {"stopped": 0}
        assert (await asker.post("/ag-ui", json=run_input("say:1"))).status_code == 404
        assert frames_in((await asker.post("/ag-ui/connect", json=run_input(""))).text) == []
    async with opened(bridge, "/ws/ai-sdk") as ws:
        await ws.send(json.dumps({"type": "send", "requestId": "1", **chat("say:1")}))
        refused = {"type": "error", "requestId": "1", "errorText": "no such thread"}
        assert await received(ws) == refused
        await ws.send(json.dumps({"type": "resume", "requestId": "2", "id": "t1"}))
        assert await received(ws) == {"type": "no-active", "requestId": "2"}
    for path in ("/ws/ag-ui", "/ws/tanstack"):
        async with opened(bridge, path) as ws:
            await ws.send(json.dumps(run_input("say:1")))
            assert "no such thread" in str(await received(ws))
    assert await bridge.factory.runs("user_123") == []


async def test_a_turn_is_its_users_own(bridge: Bridge) -> None:
    """Another user with the same chat, thread and run ids finds nothing, and stops nothing."""
    async with (
        client(bridge) as mine,
        client(bridge, "user_456") as other,
        mine.stream("POST", "/ai-sdk", json=chat("say:3 wait")) as stream,
    ):
        await anext(stream.aiter_lines())
        await until(lambda: bridge.factory.supervisor.running == 1)
        assert (await other.get("/ai-sdk/t1/stream")).status_code == 204
        assert (await other.post("/ai-sdk/t1/stop")).json() == {"stopped": 0}
        url = "/ws/tanstack?runId=run-a&offset=-1"
        headers = bearer(token("user_456"))
        async with opened(bridge, url, additional_headers=headers) as ws:
            assert await closed(ws) == 1008
        assert (await mine.post("/ai-sdk/t1/stop")).json() == {"stopped": 1}


async def test_whose_log_may_only_be_read_asks_nothing(bridge: Bridge) -> None:
    """403, before the application hears of it."""
    bridge.factory.authorize_log = lambda _, log_id: "read"
    async with client(bridge) as asker:
        assert (await asker.post("/ai-sdk", json=chat("say:1"))).status_code == 403
        assert (await asker.post("/ag-ui", json=run_input("say:1"))).status_code == 403
        assert (await asker.post("/ai-sdk/t1/stop")).json() == {"stopped": 0}


async def test_without_credentials_nobody_is_let_in(bridge: Bridge) -> None:
    """401 over HTTP and in the handshake."""
    async with bridge.http() as asker:
        for path in ("/ai-sdk", "/ag-ui", "/ag-ui/connect", "/ag-ui/stop", "/ai-sdk/t1/stop"):
            assert (await asker.post(path, json={})).status_code == 401
        assert (await asker.get("/ai-sdk/t1/stream")).status_code == 401
    for path in ("/ws/ai-sdk", "/ws/ag-ui", "/ws/ag-ui/connect", "/ws/tanstack"):
        with pytest.raises(InvalidStatus) as refused:
            async with opened(bridge, path, additional_headers={}):
                pass
        assert refused.value.response.status_code == 401


async def test_a_browsers_token_travels_as_a_subprotocol(bridge: Bridge) -> None:
    """The server chooses another one of those offered, never the one with the token."""
    offered = [Subprotocol("app.chat"), Subprotocol(f"catenary.bearer.{token()}")]
    options: dict[str, Any] = {"subprotocols": offered, "additional_headers": {}}
    async with opened(bridge, "/ws/ai-sdk", **options) as ws:
        assert ws.subprotocol == "app.chat"
        await ws.send(json.dumps({"type": "resume", "requestId": "1", "id": "t1"}))
        assert await received(ws) == {"type": "no-active", "requestId": "1"}


# Limits


async def test_long_histories_are_taken_up_to_the_limit(bridge: Bridge) -> None:
    """2 MiB on the wires of other clients; over 4 MiB is refused."""
    async with client(bridge) as asker:
        long = {**chat("say:1"), "body": "x" * (2 << 20)}
        assert (await asker.post("/ai-sdk", json=long)).status_code == 200
        too_long = {**chat("say:1"), "body": "x" * (5 << 20)}
        assert (await asker.post("/ai-sdk", json=too_long)).status_code == 413
    async with opened(bridge, "/ws/ai-sdk") as ws:
        await ws.send(json.dumps({"type": "send", "requestId": "1", **long}))
        assert await received(ws) == {"type": "start", "requestId": "1"}
        await ws.send(json.dumps({"type": "send", "requestId": "2", **too_long}))
        assert await closed(ws) == 1009


@pytest.mark.parametrize("path", PATHS)
async def test_who_sends_too_much_is_refused(path: str) -> None:
    """With 429 and when to come back; on a socket with an error, and too many sockets with 429."""
    limits = Limits(messages_per_second=0.001, messages_burst=2, connections_per_user=2)
    async with bridge_on(path, limits=limits, wires=WIRES) as bridge:
        answering(bridge.factory)
        async with client(bridge) as asker:
            statuses = [
                (await asker.post("/ai-sdk", json=chat("say:1", f"t{n}"))).status_code
                for n in range(3)
            ]
            assert statuses == [200, 200, 429]
        async with opened(bridge, "/ws/ai-sdk") as ws, opened(bridge, "/ws/ag-ui"):
            await ws.send(json.dumps({"type": "send", "requestId": "1", **chat("say:1", "t9")}))
            assert (await received(ws))["type"] == "error"
            with pytest.raises(InvalidStatus) as refused:
                async with (
                    opened(bridge, "/ws/tanstack"),
                    opened(bridge, "/ws/ai-sdk"),
                    opened(bridge, "/ws/ai-sdk"),
                ):
                    pass
            assert refused.value.response.status_code == 429


async def test_who_does_not_stop_is_closed() -> None:
    """After so many messages over the rate, whatever they are."""
    limits = Limits(messages_per_second=0.001, messages_burst=5, refused_messages=10)
    async with bridge_on("fast", limits=limits, wires=WIRES) as bridge:
        for path in ("/ws/ai-sdk", "/ws/tanstack"):
            async with opened(bridge, path) as ws:
                for number in range(15):
                    await ws.send(json.dumps({"type": "abort", "runId": str(number)}))
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(ws.recv(), 0.1)
                await ws.send("{")
                assert await closed(ws) == 4002


async def test_nonsense_closes_nothing_and_is_answered_where_it_can_be(bridge: Bridge) -> None:
    """A socket goes on after it."""
    async with opened(bridge, "/ws/ai-sdk") as ws:
        for message in ("", "{", "[]", '"x"', '{"type":"send"}', "[" * 5000):
            await ws.send(message)
        await ws.send(json.dumps({"type": "dance", "requestId": "1"}))
        assert (await received(ws))["type"] == "error"
        await ws.send(json.dumps({"type": "send", "requestId": "2", "id": "t1", "messages": 1}))
        assert (await received(ws))["type"] == "error"
        await ws.send(json.dumps({"type": "send", "requestId": "3", **chat("say:2")}))
        assert (await received(ws))["type"] == "start"
    for nonsense in ("{", "[]", '{"threadId":"t1"}', json.dumps(run_input("x", thread_id="\n"))):
        async with opened(bridge, "/ws/ag-ui") as ws:
            await ws.send(nonsense)
            assert (await received(ws))["type"] == "RUN_ERROR"
            assert await closed(ws) == 1000


# Time


async def test_a_quiet_stream_shows_that_it_lives(bridge: Bridge) -> None:
    """Comments over HTTP, which no client takes for events."""
    async with client(bridge) as asker, asyncio.timeout(PATIENCE):
        for path, asked in (("/ai-sdk", chat("wait")), ("/ag-ui", run_input("wait", "t2"))):
            async with asker.stream("POST", path, json=asked) as stream:
                async for line in stream.aiter_lines():
                    if line == ": heartbeat":
                        break


async def test_an_answer_that_nobody_begins_is_an_error(bridge: Bridge) -> None:
    """After the time that a run may take to begin."""
    async with client(bridge) as asker:
        answer = await asker.post("/ai-sdk", json=chat("nobody"))
        error = {"type": "error", "errorText": "no agent began to answer"}
        assert frames_in(answer.text) == [error]


async def test_a_drain_ends_streams_so_that_their_clients_know(bridge: Bridge) -> None:
    """With an error, a body that is cut off, or 1012; never as if the answer were whole."""
    async with (
        client(bridge) as asker,
        opened(bridge, "/ws/ai-sdk") as chats,
        opened(bridge, "/ws/tanstack") as conversation,
    ):
        await chats.send(json.dumps({"type": "send", "requestId": "1", **chat("say:1 wait", "t3")}))
        await conversation.send(json.dumps(run_input("say:1 wait", "t4", "run-b")))
        async with (
            asker.stream("POST", "/ai-sdk", json=chat("say:1 wait")) as first,
            asker.stream("POST", "/ag-ui", json=run_input("say:1 wait", "t2")) as second,
        ):
            await until(lambda: bridge.factory.manager.connection_count == 4)
            draining = asyncio.create_task(bridge.factory.drain(0))
            body = (await first.aread()).decode()
            assert frames_in(body)[-1] == {"type": "error", "errorText": "the server restarts"}
            assert "[DONE]" not in body
            with pytest.raises(httpx.RemoteProtocolError):
                await second.aread()
        message = await received(chats)
        while message["type"] in {"start", "chunk"}:
            message = await received(chats)
        assert message == {"type": "error", "requestId": "1", "errorText": "the server restarts"}
        assert await closed(conversation) == 1012
        await draining
        refused = await asker.post("/ai-sdk", json=chat("say:1", "t9"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_a_reader_that_stops_costs_nobody_anything() -> None:
    """Its cursor stands still, the agent goes on; when it reads again it gets all of it."""
    async with bridge_on("fast", wires=WIRES) as bridge:
        answering(bridge.factory)
        body = json.dumps(chat("big:9000")).encode()
        head = (
            f"POST /ai-sdk HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode()
        with socket.create_connection(("127.0.0.1", bridge.server.port)) as slow:
            slow.sendall(head + body)
            async with client(bridge) as other:
                quick = await other.post("/ai-sdk", json=chat("say:3", "t2"))
                assert text_in(frames_in(quick.text)) == "0 1 2 "
            await until(lambda: bridge.factory.supervisor.running == 0)
            (info,) = bridge.factory.manager.connections("user_123")
            assert info.lag > 1000
            (connection,) = bridge.factory.manager._all()
            assert connection.transport.buffered_bytes < 1 << 20
            received = await asyncio.to_thread(_read_all, slow)
        frames = frames_in(received)
        assert text_in(frames) == "x" * 9_000_000
        assert frames[-1]["type"] == "finish"


def _read_all(peer: socket.socket) -> str:
    peer.settimeout(PATIENCE)
    response = http.client.HTTPResponse(peer)
    response.begin()
    return response.read().decode()


# Options


@pytest.mark.parametrize(("on_abort", "ends"), [("cancel", True), ("detach", False)])
async def test_what_an_abort_does_is_configured(on_abort: str, ends: bool) -> None:
    """It cancels the run, or leaves it alone; the stream ends either way."""
    async with bridge_on("fast", wires=WIRES, on_abort=on_abort) as bridge:
        answering(bridge.factory)
        async with opened(bridge, "/ws/ai-sdk") as ws:
            await ws.send(json.dumps({"type": "send", "requestId": "1", **chat("say:1 wait")}))
            while (await received(ws)).get("chunk", {}).get("type") != "text-delta":
                pass
            await ws.send(json.dumps({"type": "abort", "requestId": "1"}))
            await until(lambda: bridge.factory.manager.connection_count == 0)
            if ends:
                await until(lambda: bridge.factory.supervisor.running == 0)
            assert bridge.factory.supervisor.running == (0 if ends else 1)


async def test_the_wires_in_fastapi() -> None:
    """Under a prefix, with the application's own way to tell who asks."""
    factory = WebSocketBridgeFactory(log="memory://?private", run_drain_timeout=0.2)
    answering(factory)

    async def who(connection: HTTPConnection) -> Identity | None:
        user = connection.headers.get("x-user")
        return Identity(user_id=user) if user else None

    app = FastAPI()
    app.include_router(catenary_router(factory, authenticate=who, wires=WIRES), prefix="/live")
    async with factory, serving(app) as server, httpx.AsyncClient(trust_env=False) as asker:
        url = f"http://127.0.0.1:{server.port}/live"
        answer = await asker.post(f"{url}/ai-sdk", json=chat("say:3"), headers={"x-user": "user_1"})
        assert text_in(frames_in(answer.text)) == "0 1 2 "
        assert (await asker.post(f"{url}/ai-sdk", json=chat("say:3"))).status_code == 401


def test_a_wire_that_is_unknown_is_refused() -> None:
    """At the start, with those that there are."""
    factory = WebSocketBridgeFactory(log="memory://?private")
    with pytest.raises(ConfigError, match=r"no such wire: ai; there are ai-sdk, ag-ui, tanstack"):
        factory.asgi_app(wires=["ai"])

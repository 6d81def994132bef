"""The bridge inside FastAPI applications, and under several servers."""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect

from catenary.errors import ConfigError, UsageError
from catenary.integrations.fastapi import catenary_router
from catenary.validate.stores import free_port
from tests.integrations import applications
from tests.integrations.applications import (
    API_KEY,
    Sessions,
    by_header,
    by_session,
    new_app,
    new_factory,
)
from tests.serving.bridges import bearer
from tests.serving.sockets import serving

with warnings.catch_warnings():
    # Newer versions of the client would like another HTTP library than httpx.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient, WebSocketDenialResponse

ME = {"x-session": "session-of-user_123"}
PATIENCE = 10.0


@pytest.fixture
def client() -> Any:
    with TestClient(new_app()) as client:
        yield client


def through_live(socket: Any) -> list[dict[str, Any]]:
    messages = [socket.receive_json()]
    while messages[-1]["type"] != "live":
        messages.append(socket.receive_json())
    return messages


# Who is asking


def test_a_dependency_tells_who_connects(client: TestClient) -> None:
    """With its own dependencies, and with their ends."""
    before = Sessions.closed
    with client.websocket_connect("/live/ws", headers=ME, subprotocols=["catenary.v1"]) as socket:
        assert socket.receive_json()["user_id"] == "user_123"
        assert Sessions.closed == before + 1
    assert client.get("/live/api/users/user_123/events", headers=ME).status_code == 200


def test_an_endpoint_has_the_identity_and_an_emitter(client: TestClient) -> None:
    """What it emits reaches the user's connections."""
    assert client.get("/me", headers=ME).json() == {
        "user_id": "user_123", "session_id": "session-of-user_123",
    }  # fmt: skip
    with client.websocket_connect("/live/ws", headers=ME) as socket:
        through_live(socket)
        told = client.post("/notes", headers=ME).json()
        event = socket.receive_json()
        assert (event["id"], event["data"]) == (told["position"], {"from": "an endpoint"})


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, 4501),
        ({"x-session": "nobody"}, 401, 4501),
        ({"x-session": "blocked"}, 403, 4503),
        ({"x-session": "later"}, 503, None),
    ],
)
def test_a_dependency_may_refuse(
    client: TestClient, headers: dict[str, str], status: int, code: int | None
) -> None:
    """As a status to an endpoint and to /api, as a close code to a browser's WebSocket."""
    for path in ("/me", "/live/api/users/user_123/events"):
        assert client.get(path, headers=headers).status_code == status
    with pytest.raises((WebSocketDenialResponse, WebSocketDisconnect)) as refused:  # noqa: SIM117
        with client.websocket_connect(
            "/live/ws", headers=headers, subprotocols=["catenary.v1"]
        ) as socket:
            socket.receive_json()
    if code is None:
        assert isinstance(refused.value, WebSocketDenialResponse)
        assert refused.value.status_code == status
    else:
        assert isinstance(refused.value, WebSocketDisconnect)
        assert refused.value.code == code


@pytest.mark.parametrize("authenticate", [by_session, Depends(by_session)])
def test_a_dependency_may_be_overridden(authenticate: Any) -> None:
    """As tests of applications do it."""
    app = new_app(authenticate=authenticate)
    app.dependency_overrides[by_session] = lambda: "user_456"
    with TestClient(app) as client:
        assert client.get("/me").json()["user_id"] == "user_456"
        with client.websocket_connect("/live/ws") as socket:
            assert socket.receive_json()["user_id"] == "user_456"


def test_a_function_of_the_connection_is_enough() -> None:
    """It needs nothing of FastAPI."""
    with TestClient(new_app(authenticate=by_header)) as client:
        assert client.get("/me", headers={"x-user": "user_789"}).json()["user_id"] == "user_789"
        assert client.get("/me").status_code == 401


def test_a_credential_is_renewed_through_the_dependency() -> None:
    """It is asked with the connection, bearing the new token."""

    async def by_token(connection: HTTPConnection) -> str | None:
        return connection.headers.get("authorization", "").removeprefix("Bearer ") or None

    with (
        TestClient(new_app(authenticate=by_token)) as client,
        client.websocket_connect("/live/ws", headers=bearer("user_123")) as socket,
    ):
        through_live(socket)
        socket.send_json({"type": "auth", "token": "user_123"})
        assert socket.receive_json()["type"] == "auth_ok"
        socket.send_json({"type": "auth", "token": "user_456"})
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 4503


# What is served


def test_the_parts_are_served_as_asked(client: TestClient) -> None:
    """All below the prefix; none of what was not asked for."""
    assert client.get("/live/healthz").status_code == 200
    assert client.get("/live/readyz").json() == {"status": "ready"}
    assert "catenary_connections" in client.get("/live/metrics").text
    told = client.post(
        "/live/api/users/user_123/events", json={"type": "app.x"}, headers=bearer(API_KEY)
    )
    assert told.status_code == 201
    assert client.get("/live/ws").status_code == 426
    asked = {"type": "user_message", "id": "1", "data": {"content": "hello"}}
    assert client.post("/live/api/messages", json=asked, headers=ME).json()["type"] == "ack"
    with TestClient(new_app(api=False, health=False)) as bare:
        assert bare.get("/live/healthz").status_code == 404
        assert bare.get("/live/api/inspect", headers=bearer(API_KEY)).status_code == 404


def test_the_lifespan_starts_the_bridge_and_drains_it() -> None:
    """Beside the application's own."""
    factory = new_factory()
    seen: list[bool] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        seen.append(factory.is_started)
        yield
        seen.append(factory.is_started)

    app = FastAPI(lifespan=lifespan)
    app.include_router(catenary_router(factory, authenticate=by_header))
    with TestClient(app):
        assert factory.is_started
    assert not factory.is_started
    assert factory.is_draining
    assert seen == [False, False]


def test_mistakes_are_told() -> None:
    """An unknown wire, a lifespan that does not run, a second bridge."""
    factory = new_factory()
    with pytest.raises(ConfigError, match="telex"):
        catenary_router(factory, authenticate=by_header, wires=["telex"])
    with pytest.raises(UsageError, match="lifespan"):
        TestClient(new_app()).get("/me", headers=ME)
    app = new_app()
    app.include_router(catenary_router(factory, authenticate=by_header), prefix="/other")
    with pytest.raises(ConfigError, match="one bridge"), TestClient(app):
        pass


# Servers


async def conversation(port: int, prefix: str = "/live") -> None:
    """What works on every server: a question, its answer as events, a resume, a stream, a refusal."""
    headers = {"x-user": "user_123"}
    url = f"ws://127.0.0.1:{port}{prefix}/ws"

    async def receive(socket: Any) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await socket.recv())
        return message

    async with asyncio.timeout(PATIENCE):
        async with connect(url, additional_headers=headers, proxy=None) as one:
            assert (await receive(one))["type"] == "connected"
            ask = {"type": "user_message", "id": "1", "thread_id": "t", "data": {"content": "?"}}
            await one.send(json.dumps(ask))
            messages = [await receive(one)]
            while messages[-1]["type"] != "agent_completed":
                messages.append(await receive(one))
            events = [message for message in messages if "seq" in message]
            assert [event["seq"] for event in events] == [1, 2, 3, 4]
        resume = f"{url}?after={events[1]['id']}"
        async with connect(resume, additional_headers=headers, proxy=None) as two:
            assert (await receive(two))["replay"] == 2
            assert (await receive(two))["seq"] == 3
        base = f"http://127.0.0.1:{port}{prefix}"
        async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False) as http:
            async with http.stream("GET", "/sse?after=open") as stream:
                lines = stream.aiter_lines()
                while not (await anext(lines)).startswith("data: "):
                    pass
            assert (await http.get("/api/users/user_456/events")).status_code == 403
        async with connect(url, proxy=None, subprotocols=["catenary.v1"]) as nobody:  # type: ignore[list-item]
            await nobody.wait_closed()
            assert nobody.close_code == 4501


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"http": "httptools"},
        {"ws": "websockets-sansio", "http": "httptools"},
        {"ws": "websockets-sansio", "http": "h11"},
    ],
    ids=["fast", "fast, uvicorn's http", "plain", "plain, h11"],
)
@pytest.mark.parametrize("make", [applications.fastapi_app, applications.mounted_app])
async def test_under_uvicorn(options: dict[str, Any], make: Any) -> None:
    """With the fast path and without it, the router and the raw application."""
    app = make()
    async with app.router.lifespan_context(app), serving(app, **options) as server:
        await conversation(server.port)


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[int]:
    """A server in a process of its own, on a port that it is told."""
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *(part.format(port=port) for part in arguments),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False) as http:
            while True:
                assert server.returncode is None
                try:
                    await http.get(f"http://127.0.0.1:{port}/live/ws")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
        yield port
    finally:
        if server.returncode is None:
            server.terminate()
        try:
            await asyncio.wait_for(server.wait(), 5)
        except TimeoutError:
            server.kill()
            await server.wait()


_UVICORN = ("uvicorn", "--port={port}", "--log-level=critical")
_FAST = ("--ws=catenary.serving:WebSocketProtocol", "--http=catenary.serving:HTTPProtocol")


@pytest.mark.parametrize(
    "server",
    [
        (*_UVICORN, *_FAST),
        (*_UVICORN, "--ws=websockets-sansio"),
        ("hypercorn", "--bind=127.0.0.1:{port}"),
        ("granian", "--interface=asgi", "--port={port}", "--workers=1"),
    ],
    ids=["uvicorn, fast", "uvicorn", "hypercorn", "granian"],
)
@pytest.mark.parametrize("name", ["fastapi", "mounted"])
async def test_under_servers_in_processes(server: tuple[str, ...], name: str) -> None:
    """The same conversation under each, started as their users start them."""
    async with process(*server, f"tests.integrations.applications:{name}") as port:
        await conversation(port)

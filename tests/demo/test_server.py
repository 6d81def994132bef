"""The demo's server: its page, its users, its slow readers, and what outlives a restart."""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from catenary.auth import sign_token
from catenary.demo.server import Sessions, demo_app, kept_secret
from catenary.errors import ConfigError
from catenary.serving.asgi import BridgeApp
from catenary.settings import load
from catenary.transport import FrontTransport
from tests.serving.bridges import Client, asgi_client
from tests.serving.sockets import Server, serving, until


def demo(**options: Any) -> BridgeApp:
    settings = load({"dev": True, "log": "memory://?private", "run_drain_timeout": 0.2, **options})
    return demo_app(settings, pace=0.0)


class Visitor:
    """A page: its token, its user, and a client of the server."""

    def __init__(self, server: Server, http: httpx.AsyncClient, session: dict[str, Any]) -> None:
        self.port = server.port
        self.http = http
        self.user_id: str = session["user_id"]
        self.token: str = session["token"]

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        offered = [Subprotocol("catenary.v1"), Subprotocol(f"catenary.bearer.{self.token}")]
        url = f"ws://127.0.0.1:{self.port}/ws"
        async with connect(url, subprotocols=offered, proxy=None) as socket:
            yield Client(socket)

    async def slow(self, connection_id: str, seconds: float) -> int:
        response = await self.http.post(
            "/demo/slow",
            json={"connection_id": connection_id, "seconds": seconds},
            headers={"authorization": f"Bearer {self.token}"},
        )
        return response.status_code


@asynccontextmanager
async def served(app: BridgeApp) -> AsyncIterator[Server]:
    async with app.factory, serving(app) as server:
        yield server


async def visitor(server: Server, http: httpx.AsyncClient) -> Visitor:
    return Visitor(server, http, (await http.post("/demo/session", json={})).json())


def client_of(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False)


# The page


async def test_the_page_runs_its_own_scripts_and_no_others() -> None:
    """The policy names its own host; nothing stands inline in the page."""
    async with served(demo()) as server, client_of(server) as http:
        response = await http.get("/")
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert f"ws://127.0.0.1:{server.port}" in policy
        assert "frame-ancestors 'none'" in policy
        assert "<script>" not in response.text
        assert " style=" not in response.text
        for name in ("demo.js", "demo.css", "catenary.js"):
            assert (await http.get(f"/static/{name}")).status_code == 200
        script = await http.get("/static/demo.js")
        assert script.headers["x-content-type-options"] == "nosniff"
        assert (await http.get("/static/../server.py")).status_code == 404


async def test_a_page_of_another_name_is_not_served() -> None:
    """A name that resolves to this machine is not this machine's name."""
    async with asgi_client(demo()) as http:
        assert (await http.get("/")).status_code == 403
        assert (await http.post("/demo/session", json={})).status_code == 403


# Who the page is


async def test_a_page_comes_back_as_the_same_user() -> None:
    """Whoever shows a former token is who it names; others are new users."""
    async with served(demo()) as server, client_of(server) as http:
        first = (await http.post("/demo/session", json={})).json()
        again = (await http.post("/demo/session", json={"token": first["token"]})).json()
        other = (await http.post("/demo/session", json={})).json()
        forged = (await http.post("/demo/session", json={"token": "e30.e30.e30"})).json()
    assert again["user_id"] == first["user_id"]
    assert len({first["user_id"], other["user_id"], forged["user_id"]}) == 3
    assert again["expires_at"] > time.time() + 3000


async def test_a_token_that_expired_still_says_who_its_page_was() -> None:
    """It opens nothing any more, but brings a fresh one of the same user."""
    secret = "s" * 32
    old = sign_token("user_123", secret=secret, ttl=60, clock=lambda: time.time() - 7200)
    assert await Sessions(secret)._user_of(old) == "user_123"


def test_the_secret_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    """A restart finds the same one."""
    path = tmp_path / "state" / "demo.db.secret"
    secret = kept_secret(path)
    assert kept_secret(path) == secret
    assert len(secret) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_secret_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    """The error says where, and what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="keeps its secret in"):
        kept_secret(tmp_path / "file" / "demo.db.secret")


async def test_a_restart_keeps_users_and_their_events(tmp_path: Path) -> None:
    """The token of before opens the log of before."""
    log = f"sqlite:///{tmp_path / 'demo.db'}"
    async with served(demo(log=log)) as server, client_of(server) as http:
        before = await visitor(server, http)
        async with before.connected() as client:
            answer = await client.ask(
                {"type": "user_message", "id": "1", "thread_id": "t1", "data": {"content": "1+1"}}
            )
            assert answer["type"] == "ack"
    async with served(demo(log=log)) as server, client_of(server) as http:
        headers = {"authorization": f"Bearer {before.token}"}
        history = await http.get(f"/api/users/{before.user_id}/events", headers=headers)
    assert history.json()["events"][0]["type"] == "user_message"


# The agent


async def test_a_question_is_answered_in_a_run() -> None:
    """The reply names the run; its events follow, to its end."""
    async with served(demo()) as server, client_of(server) as http:
        page = await visitor(server, http)
        async with page.connected() as client:
            await client.send(
                {
                    "type": "user_message",
                    "id": "1",
                    "thread_id": "t1",
                    "data": {"content": "How much is 30 times 64 KiB?"},
                }
            )
            messages = await client.until("agent_completed")
    events = [message for message in messages if "seq" in message]
    reply = next(message["reply"] for message in messages if message["type"] == "ack")
    assert {event.get("run_id") for event in events if event["type"] != "user_message"} == {
        reply["run_id"]
    }
    assert {"agent_started", "agent_thinking", "tool_executing", "agent_delta"} <= {
        event["type"] for event in events
    }
    assert "1.875 MiB" in events[-1]["data"]["result"]["answer"]


async def test_a_message_without_a_question_is_answered_too() -> None:
    """Whatever a page sends, its run ends."""
    async with served(demo()) as server, client_of(server) as http:
        page = await visitor(server, http)
        async with page.connected() as client:
            await client.send({"type": "user_message", "id": "1", "thread_id": "t1", "data": {}})
            await client.until("agent_completed")


# Slow readers


async def test_a_slow_reader_gets_nothing_and_then_everything() -> None:
    """The log keeps the events; other connections of the same user notice nothing."""
    app = demo()
    async with served(app) as server, client_of(server) as http:
        page = await visitor(server, http)
        emitter = await app.factory.create_user_emitter(page.user_id)
        async with page.connected() as slow, page.connected() as quick:
            connection_id = (await slow.receive())["connection_id"]
            await slow.until("live")
            await quick.until("live")
            assert await page.slow(connection_id, 0.3) == 200
            began = time.monotonic()
            for number in range(100):
                emitter.custom("app.tick", {"number": number})
            assert [(await quick.receive())["seq"] for _ in range(100)][-1] == 100
            assert time.monotonic() - began < 0.2
            connection = app.factory.manager.find(page.user_id, connection_id)
            assert connection is not None
            assert connection.transport.buffered_bytes == 0
            received = [(await slow.receive())["seq"] for _ in range(100)]
            assert time.monotonic() - began >= 0.25
    assert received == list(range(1, 101))


async def test_an_answer_to_a_slow_reader_comes_when_it_reads_again() -> None:
    """A pong is held like everything else, and is not lost."""
    async with served(demo()) as server, client_of(server) as http:
        page = await visitor(server, http)
        async with page.connected() as client:
            connection_id = (await client.receive())["connection_id"]
            assert await page.slow(connection_id, 0.2) == 200
            assert await page.slow(connection_id, 0.2) == 409
            began = time.monotonic()
            assert (await client.ask({"type": "ping", "id": 1}))["type"] == "pong"
            assert time.monotonic() - began >= 0.1


async def test_a_slow_connection_is_known_behind_what_stands_before_it() -> None:
    """A monitor's tap, put on meanwhile, hides nothing."""
    app = demo()
    async with served(app) as server, client_of(server) as http:
        page = await visitor(server, http)
        async with page.connected() as client:
            connection_id = (await client.receive())["connection_id"]
            assert await page.slow(connection_id, 0.5) == 200
            connection = app.factory.manager.find(page.user_id, connection_id)
            assert connection is not None
            connection.transport = FrontTransport(connection.transport)
            assert await page.slow(connection_id, 0.5) == 409


async def test_a_connection_that_closes_while_it_is_slow_leaves_nothing() -> None:
    """The timer finds a transport that is closed, and does nothing."""
    app = demo()
    async with served(app) as server, client_of(server) as http:
        page = await visitor(server, http)
        async with page.connected() as client:
            connection_id = (await client.receive())["connection_id"]
            assert await page.slow(connection_id, 0.05) == 200
        await until(lambda: app.factory.manager.connection_count == 0)
        await asyncio.sleep(0.1)


async def test_nobody_slows_down_somebody_else() -> None:
    """Another user's connection is answered as if there were none."""
    async with served(demo()) as server, client_of(server) as http:
        one, other = await visitor(server, http), await visitor(server, http)
        async with one.connected() as client:
            connection_id = (await client.receive())["connection_id"]
            assert await other.slow(connection_id, 1) == 404
            assert await other.slow("c_unknown", 1) == 404
            one.token = "e30.e30.e30"
            assert await one.slow(connection_id, 1) == 401


@pytest.mark.parametrize("seconds", [0, -1, 61])
async def test_slowness_has_an_end(seconds: float) -> None:
    """Not longer than a minute, and not less than nothing."""
    async with served(demo()) as server, client_of(server) as http:
        page = await visitor(server, http)
        assert await page.slow("c_any", seconds) == 400

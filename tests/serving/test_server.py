"""The server process: it listens before its log is there, and leaves in order."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from catenary import Run, UserWebSocketContext, WebSocketBridgeFactory
from catenary.auth import JwtVerifier
from catenary.errors import ConfigError
from catenary.eventlog.sqlite.holder import FileHolder
from catenary.serving.asgi import BridgeApp
from catenary.serving.server import (
    BridgeServer,
    config_for,
    listen,
    raise_open_files_limit,
    url_of,
)
from tests.e2e.bridge_app import ACKNOWLEDGED
from tests.e2e.server import KEYS, Server, token_of
from tests.serving.bridges import API_KEY, SECRET, bearer, token
from tests.serving.sockets import until


def app_of(log: str, *, run_drain_timeout: float = 5.0) -> BridgeApp:
    factory = WebSocketBridgeFactory(log=log, run_drain_timeout=run_drain_timeout)
    return BridgeApp(factory, verifier=JwtVerifier(secret=SECRET), api_key=API_KEY)


class Running:
    """A server in this process, and a client of it."""

    def __init__(self, server: BridgeServer, url: str, http: httpx.AsyncClient) -> None:
        self.server = server
        self.url = url
        self.http = http
        self.task: asyncio.Task[None]

    async def readiness(self) -> tuple[int, str]:
        response = await self.http.get("/readyz")
        return response.status_code, response.text


@asynccontextmanager
async def running(app: BridgeApp) -> AsyncIterator[Running]:
    """Serve until the block ends, with the signal's way out."""
    urls: list[str] = []
    listener = listen("127.0.0.1", 0)
    server = BridgeServer(config_for(app), app.factory, on_started=urls.append)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: urls or task.done())
    async with httpx.AsyncClient(base_url=urls[0], trust_env=False) as http:
        served = Running(server, urls[0], http)
        served.task = task
        yield served
    server.should_exit = True
    await task


async def test_it_listens_before_its_log_is_there(tmp_path: Path) -> None:
    """While another process has the file the port answers 503 and why; then it is ready."""
    path = tmp_path / "events.db"
    other = FileHolder(path)
    other.acquire(0)
    async with running(app_of(f"sqlite:///{path}")) as served:
        response = await served.http.get("/readyz")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "not ready: starting" in response.text
        other.release()
        async with asyncio.timeout(8):
            while (await served.readiness())[0] != 200:
                await asyncio.sleep(0.02)


async def test_it_drains_while_the_listener_is_open() -> None:
    """After the signal new connections get 503, and the open run is given its time."""
    app = app_of("memory://?private")
    may_end = asyncio.Event()

    async def agent(run: Run) -> None:
        await may_end.wait()
        run.delta("done")

    async with running(app) as served:
        emitter = app.factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        handle = emitter.start_run(agent)
        served.server.handle_exit(signal.SIGTERM, None)
        await until(lambda: app.factory.is_draining)
        assert await served.readiness() == (
            503,
            '{"error":"not_ready","message":"not ready: draining"}',
        )
        assert not handle.is_done
        may_end.set()
        await served.task
    assert handle.is_done
    assert [state.status for state in await app.factory.runs("user_123")] == ["completed"]


async def test_a_run_that_outlasts_the_drain_is_ended() -> None:
    """It ends with the code shutdown, in the log, before the process does."""
    app = app_of("memory://?private", run_drain_timeout=0.1)
    async with running(app):
        emitter = app.factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
        emitter.start_run(_never_ends)
    ends = [event async for event in app.factory.events("user_123")][-1:]
    assert [end.data["code"] for end in ends] == ["shutdown"]


async def _never_ends(run: Run) -> None:
    await asyncio.Event().wait()


async def test_streams_of_events_end_in_a_drain_too() -> None:
    """An SSE client is told to come back, and its response ends."""
    async with (
        running(app_of("memory://?private")) as served,
        served.http.stream("GET", "/sse", headers=bearer(token())) as response,
    ):
        served.server.should_exit = True
        text = "".join([piece async for piece in response.aiter_text()])
    assert '"type":"closing","reason":"draining"' in text


def test_a_bridge_that_never_can_start_ends_the_server(tmp_path: Path) -> None:
    """The status is 2, and the error says why; trying again would not help."""
    log = f"sqlite:///{tmp_path / 'missing' / 'events.db'}"
    command = [sys.executable, "-m", "catenary.cli", "serve", "--dev", "--port", "0", "--log", log]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    assert ended.returncode == 2
    assert "catenary: the bridge cannot start: " in ended.stderr
    assert "missing" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Whoever does not want to wait for the runs does not have to."""
    arguments = ("serve", "--app", "tests.e2e.bridge_app:make_bridge", "--run-drain-timeout", "60")
    environment = {**KEYS, ACKNOWLEDGED: str(tmp_path / "acknowledged")}
    async with Server(tmp_path, *arguments, **environment) as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            message = {"type": "work", "id": "1", "thread_id": "t1"}
            headers = bearer(token_of("user_123"))
            response = await http.post("/api/messages", json=message, headers=headers)
            assert response.status_code == 200
        server.ask_to_stop()
        while "draining" not in server.errors():
            await asyncio.sleep(0.02)
        async with asyncio.timeout(5):
            assert await server.stop() == 128 + signal.SIGTERM


# Addresses and limits


def test_an_address_that_is_taken_is_named_with_what_to_do() -> None:
    """The error speaks of --port."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port}: .*--port"):
            listen("127.0.0.1", port)


def test_an_address_that_is_nowhere_is_refused() -> None:
    """A host that does not resolve is a setting that is wrong."""
    with pytest.raises(ConfigError, match=r"cannot listen on nowhere\.invalid:0"):
        listen("nowhere.invalid", 0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],
)
def test_the_url_is_one_that_can_be_opened_here(host: str, expected: str) -> None:
    """Listening everywhere is reached at the loopback."""
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this system has no IPv6")
    with listen(host, 0) as listener:
        assert url_of(listener) == f"http://{expected}:{listener.getsockname()[1]}"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    """Each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    assert raise_open_files_limit() == hard


def test_no_access_log_no_signature_and_no_trust_in_proxies() -> None:
    """A query may hold a ticket; and nothing here depends on where a request comes from."""
    config = config_for(app_of("memory://?private"))
    assert not config.access_log
    assert not config.server_header
    assert not config.proxy_headers

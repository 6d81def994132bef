"""Alive, ready and measured."""

from __future__ import annotations

import asyncio

import pytest

from catenary import WebSocketBridgeFactory
from catenary.errors import ConfigError, LogUnavailable
from catenary.eventlog.memory import MemoryLog
from tests.serving.bridges import API_KEY, asgi_client, bearer
from tests.serving.sockets import until


class SlowLog(MemoryLog):
    """A log whose opening takes until the test says so, and which may have a problem."""

    def __init__(self) -> None:
        super().__init__(url="memory://?private")
        self.gate = asyncio.Event()
        self.is_away = False
        self.trouble: str | None = None

    async def start(self) -> None:
        await self.gate.wait()
        if self.is_away:
            raise LogUnavailable("nobody is at redis://10.0.0.1")

    def problem(self) -> str | None:
        return self.trouble


async def test_alive_whatever_else(factory: WebSocketBridgeFactory) -> None:
    """Draining does not make a process dead."""
    async with asgi_client(factory.asgi_app()) as http:
        assert (await http.get("/healthz")).json() == {"status": "alive"}
        await factory.drain(0)
        assert (await http.get("/healthz")).status_code == 200


async def test_ready_from_the_moment_the_log_is_open() -> None:
    """Before, while it is being opened, and while it does not commit: 503, when and why."""
    log = SlowLog()
    factory = WebSocketBridgeFactory(log=log, run_drain_timeout=0.1)
    async with asgi_client(factory.asgi_app()) as http:

        async def told() -> tuple[int, str]:
            response = await http.get("/readyz")
            if response.status_code == 503:
                assert response.headers["retry-after"] == "1"
                assert response.json()["error"] == "not_ready"
            return response.status_code, response.json().get("message", "")

        assert await told() == (503, "not ready: starting")
        starting = asyncio.ensure_future(factory.start())
        await asyncio.sleep(0)
        assert await told() == (503, "not ready: starting")
        log.is_away = True
        log.gate.set()
        with pytest.raises(LogUnavailable):
            await starting
        assert await told() == (503, "not ready: the event log is not there yet")
        log.is_away = False
        await factory.start()
        assert await told() == (200, "")
        log.trouble = "/var/lib/events.db: disk full"
        status, message = await told()
        assert status == 503
        assert "/var" not in message
        log.trouble = None
        await factory.drain(0)
        assert await told() == (503, "not ready: draining")
        await factory.stop()


async def test_the_port_answers_while_the_log_is_being_opened() -> None:
    """The lifespan says that it is up at once; the log is opened behind it."""
    log = SlowLog()
    factory = WebSocketBridgeFactory(log=log, run_drain_timeout=0.1)
    app = factory.asgi_app()
    said: list[str] = []
    ends = asyncio.Event()
    begun = False

    async def receive() -> dict[str, str]:
        nonlocal begun
        if begun:
            await ends.wait()
            return {"type": "lifespan.shutdown"}
        begun = True
        return {"type": "lifespan.startup"}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        said.append(message["type"])

    serving = asyncio.ensure_future(app({"type": "lifespan"}, receive, send))
    await until(lambda: said == ["lifespan.startup.complete"])
    async with asgi_client(app) as http:
        assert (await http.get("/readyz")).status_code == 503
        log.gate.set()
        await until(lambda: factory.is_started)
        assert (await http.get("/readyz")).status_code == 200
    ends.set()
    await serving
    assert said[1:] == ["lifespan.shutdown.complete"]
    assert not factory.is_started


async def test_ready_once_the_expected_handlers_are_there(factory: WebSocketBridgeFactory) -> None:
    """An application names what it needs; until then nobody is let in."""
    async with asgi_client(factory.asgi_app(expects=["user_message"])) as http:
        response = await http.get("/readyz")
        assert response.status_code == 503
        assert "user_message" in response.json()["message"]
        factory.on_message("user_message")(lambda _message, _emitter: None)
        assert (await http.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("options", "headers", "status"),
    [
        ({}, {}, 403),
        ({}, bearer("whatever-key-there-is"), 403),
        ({"api_key": API_KEY}, {}, 401),
        ({"api_key": API_KEY}, bearer("another-key-than-that"), 401),
        ({"api_key": API_KEY}, bearer(API_KEY), 200),
        ({"metrics_key": "a-key-for-metrics"}, bearer("a-key-for-metrics"), 200),
        ({"metrics_key": "a-key-for-metrics"}, {}, 401),
        ({"api_key": API_KEY, "metrics_key": "a-key-for-metrics"}, bearer(API_KEY), 200),
        ({"open_metrics": True}, {}, 200),
    ],
)
async def test_metrics_are_for_whom_they_were_configured(
    factory: WebSocketBridgeFactory,
    options: dict[str, object],
    headers: dict[str, str],
    status: int,
) -> None:
    """A key of their own, the API key, or openly on purpose."""
    async with asgi_client(factory.asgi_app(**options)) as http:
        response = await http.get("/metrics", headers=headers)
    assert response.status_code == status
    if status == 200:
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "catenary_connections 0.0" in response.text


async def test_the_metrics_key_opens_nothing_else(factory: WebSocketBridgeFactory) -> None:
    """A scraper cannot publish."""
    key = "a-key-for-metrics"
    async with asgi_client(factory.asgi_app(api_key=API_KEY, metrics_key=key)) as http:
        response = await http.post(
            "/api/users/user_123/events", json={"type": "app.x"}, headers=bearer(key)
        )
    assert response.status_code == 401
    with pytest.raises(ConfigError):
        factory.asgi_app(metrics_key="short")

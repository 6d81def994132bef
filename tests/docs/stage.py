"""
Runs the Python blocks of one page, in order, in a process of its own.

``python -m tests.docs.stage docs/how-to/erase.md``. What the blocks take for
granted is set up here, and what they only define is called at the end.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import prometheus_client
import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from catenary import (
    Run,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    WebSocketEvent,
)
from catenary.auth import Identity, JwtVerifier, sign_token
from catenary.client import Client, CommandFailed
from catenary.inbound import Message
from catenary.limits import Limits
from catenary.observe.metrics import BridgeMetrics
from catenary.serving import HTTPProtocol, WebSocketProtocol
from tests.docs import agents
from tests.docs.pages import ROOT, blocks

Names = dict[str, Any]
SECRET = "a secret of these tests, of 32 bytes or more"


async def perform(page: Path) -> None:
    """Run the blocks of a page, then what belongs to it."""
    async with WebSocketBridgeFactory(log="memory://?private", run_drain_timeout=1) as factory:
        context = UserWebSocketContext(user_id="user_123", thread_id="t1")
        emitter = factory.get_user_emitter(context)
        names: Names = {"__name__": "page", "asyncio": asyncio, "factory": factory}
        names |= {"emitter": emitter, **given(), **agents.GIVEN.get(page.stem, dict)()}
        for number, block in enumerate(blocks(page, "python"), 1):
            await run_block(block, f"{page.name}, block {number}", names)
        after = AFTER.get(page.stem)
        if after is not None:
            await after(names)
        agent = agents.AFTER.get(page.stem)
        if agent is not None:
            async with bridge(factory) as url:
                await agent(names, url)


async def run_block(block: str, name: str, names: Names) -> None:
    """Run one block; it may await at its top level."""
    code = compile(block, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result


def given() -> Names:
    """What the pages say that an application has."""

    async def search(query: str) -> list[str]:
        return [query]

    async def model() -> AsyncIterator[str]:
        for token in ("Two ", "bridges"):
            yield token

    async def fetch_token() -> str:
        return sign_token("user_123", secret=SECRET)

    async def agent(run: Run, question: str) -> None:
        run.delta(f"You asked {question}")

    async def authenticate(connection: HTTPConnection) -> str:
        return "user_123"

    applied: list[WebSocketEvent] = []
    return {
        "agent": agent,
        "authenticate": authenticate,
        "search": search,
        "model": model,
        "fetch_token": fetch_token,
        "database": {},
        "carts": {},
        "orders": {17},
        "threads_of": {"user_123": {"t1"}},
        "sessions": {"s1": "user_123"},
        "applied": applied,
        "apply": applied.append,
        "reload": lambda after: None,
        "prometheus_client": prometheus_client,
        "BridgeMetrics": BridgeMetrics,
    }


# What a page defines, used


async def after_commands(names: Names) -> None:
    """Handlers answer as the page says."""
    handlers = names["factory"].service._handlers
    assert set(handlers) == {"user_message", "cart.set", "order.cancel"}
    token = names["fetch_token"]
    async with bridge(names["factory"]) as url, Client(url, token=token) as client:
        reply = await client.send("user_message", {"content": "Hello"}, thread_id="t1")
        assert reply["run_id"]
        await client.send("cart.set", {"apples": 2})
        assert names["carts"] == {"user_123": {"apples": 2}}
        await client.send("order.cancel", {"order": 17})
        with pytest.raises(CommandFailed, match="not_found"):
            await client.send("order.cancel", {"order": 18})
    assert await names["may_use"](Identity(user_id="user_123"), "t1")
    assert names["service"].manager is names["get_websocket_manager"]()


async def after_authenticate(names: Names) -> None:
    """The functions of the page tell who it is."""
    verifier = JwtVerifier(secret=names["SECRET"], audience="chat", issuer="https://id.example")
    assert (await verifier.verify(names["token"])).user_id == "user_123"
    names["sessions"]["s2"] = {"user_id": "user_123", "id": "s2", "is_banned": False}
    cookies = Headers({"cookie": "session=s2"}).raw
    connection = HTTPConnection({"type": "http", "headers": cookies})
    assert (await names["authenticate"](connection)).session_id == "s2"
    assert names["authorize_log"](Identity(user_id="user_456"), "conversation:42") == "write"
    assert names["authorize_log"](Identity(user_id="user_789"), "conversation:42") is None


async def after_fastapi(names: Names) -> None:
    """The endpoint knows who asks, and refuses whom it does not know."""
    asked = {"question": "Which?"}
    async with serving(names["app"]) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.post("/questions", params=asked)).status_code == 401
        http.cookies.set("session", "s1")
        answer = await http.post("/questions", params=asked)
        assert answer.json()["user_id"] == "user_123"
    async with serving(names["other"]) as url, httpx.AsyncClient(base_url=url) as http:
        http.cookies.set("session", "s1")
        answer = await http.post("/api/tickets", json={"purpose": "sse"})
        assert answer.status_code == 201


async def after_clients(names: Names) -> None:
    """Every kind of client of the page reads an answer."""
    factory: WebSocketBridgeFactory = names["factory"]

    async def answer(run: Run) -> None:
        run.delta("Two bridges")

    @factory.on_message("user_message")
    async def ask(message: Message, emitter: UserWebSocketEmitter) -> dict[str, str]:
        return {"run_id": emitter.start_run(answer).run_id}

    async with bridge(factory) as url:
        assert await names["watch"](url) == "Two bridges"
        assert await asyncio.to_thread(names["first_text"], url) == "Two bridges"
        types = await names["by_hand"](url, await names["fetch_token"]())
        assert types[:2] == ["user_message", "agent_started"]
        async with Client(url, token=names["fetch_token"]) as client:
            following = asyncio.create_task(names["follow"](client))
            async with asyncio.timeout(5):
                while not names["applied"]:
                    await asyncio.sleep(0.01)
        await following


async def after_ai_sdk(names: Names) -> None:
    """A message of a chat is answered with the chunks of its message."""
    parts = [{"type": "text", "text": "Which?"}]
    asked = {"id": "t1", "messages": [{"id": "m1", "role": "user", "parts": parts}]}
    async with serving(names["app"]) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.post("/live/ai-sdk", json=asked)).status_code == 401
        http.cookies.set("session", "s1")
        answer = await http.post("/live/ai-sdk", json=asked)
        assert '"delta":"bridge "' in answer.text
        assert answer.text.endswith("[DONE]\n\n")


async def after_ag_ui(names: Names) -> None:
    """A run is streamed from its start to its end."""
    messages = [{"id": "m1", "role": "user", "content": "Which?"}]
    asked = {"threadId": "t1", "runId": "run-a", "messages": messages}
    async with (
        serving(names["application"]) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        answer = await http.post("/ag-ui", json=asked)
        assert "You asked Which?" in answer.text
        assert "RUN_FINISHED" in answer.text


async def after_break_the_network(names: Names) -> None:
    """Through every network of the page the answer arrives."""
    factory: WebSocketBridgeFactory = names["factory"]

    async def answer(run: Run) -> None:
        for token in ("Two ", "bridges"):
            run.delta(token)
            await asyncio.sleep(0.05)

    @factory.on_message("user_message")
    async def ask(message: Message, emitter: UserWebSocketEmitter) -> dict[str, str]:
        return {"run_id": emitter.start_run(answer).run_id}

    async with bridge(factory) as url:
        assert await names["answer_on_another_network"](url) == "Two bridges"
        assert await names["attempts_until_it_is_calm"](url) > 1
        assert await names["through_the_tunnel"](url) > 1
        assert await names["in_the_lift"](url) == 0
        await names["how_often_it_was_cut"](url)
        assert (await asyncio.to_thread(names["first_text"], url)).startswith("Two ")


async def after_settings(names: Names) -> None:
    """The limits are those that were given."""
    assert names["tuned"].limits == Limits(connections_per_user=5, heartbeat_interval=10)


AFTER: dict[str, Callable[[Names], Awaitable[None]]] = {
    "commands": after_commands,
    "authenticate": after_authenticate,
    "fastapi": after_fastapi,
    "clients": after_clients,
    "ai-sdk": after_ai_sdk,
    "ag-ui": after_ag_ui,
    "break-the-network": after_break_the_network,
    "settings": after_settings,
}


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application on a free port; gives its URL."""
    config = uvicorn.Config(
        app, port=0, http=HTTPProtocol, ws=WebSocketProtocol, log_level="warning"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def bridge(factory: WebSocketBridgeFactory) -> AsyncIterator[str]:
    """Serve a bridge; gives the URL of its ``/ws``."""
    async with serving(factory.asgi_app(verifier=JwtVerifier(secret=SECRET))) as url:
        yield url.replace("http", "ws") + "/ws"


if __name__ == "__main__":
    asyncio.run(perform(ROOT / sys.argv[1]))

"""A real nginx with the file of ``deploy/`` before a node, of which another one is away."""

from __future__ import annotations

import asyncio
import json

from catenary.client import Client, State
from catenary.validate.stores import free_port
from tests.serving.sockets import until

from .balancers import Balancer, Nginx
from .support import Bridge, bridge, token_of

USER = "user_123"
TICKET = "a-ticket-that-nobody-issued"
PATIENCE = 10.0


async def test_nginx_passes_everything_on_as_it_comes() -> None:
    """WebSockets and streams work; a node that is away is passed over; metrics are not shown."""
    async with bridge() as node, Nginx([free_port(), node.server.port]) as nginx:
        for _ in range(4):
            await check_websocket(nginx, node)
        await check_sse(nginx, node)
        async with nginx.api() as http:
            assert (await http.get("/readyz")).status_code == 200
            assert (await http.get("/metrics")).status_code == 404
            await http.get("/sse", params={"ticket": TICKET})
        await until(lambda: "GET /metrics" in nginx.logged())
        assert TICKET not in nginx.logged()


async def check_websocket(nginx: Balancer, node: Bridge) -> None:
    """An event reaches a client that connects through nginx."""
    async with Client(nginx.websocket, token=lambda: token_of(USER), after="now") as client:
        await until(lambda: client.state is State.LIVE)
        await node.emitter(USER).custom("app.tick", {"n": 1})
        async with asyncio.timeout(PATIENCE):
            event = await anext(aiter(client))
        assert event.data == {"n": 1}


async def check_sse(nginx: Balancer, node: Bridge) -> None:
    """An event of a stream comes while the stream goes on: nothing buffers it."""
    headers = {"authorization": f"Bearer {token_of(USER)}"}
    async with (
        nginx.api() as http,
        http.stream("GET", "/sse", params={"after": "now"}, headers=headers) as stream,
        asyncio.timeout(PATIENCE),
    ):
        lines = stream.aiter_lines()
        async for line in lines:
            if "connected" in line:
                break
        node.emitter(USER).custom("app.tick", {"n": 2})
        async for line in lines:
            if line.startswith("data:") and json.loads(line[5:]).get("data") == {"n": 2}:
                return
        raise AssertionError("the stream ended")

"""A server that says what a test wants, also what no server of ours would say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

GREETING = {
    "type": "connected", "protocol": "catenary.v1", "connection_id": "c_1", "user_id": "user_123",
    "position": "k3:0", "after": "k3:0", "replay": 0, "heartbeat_interval": 15,
}  # fmt: skip
LIVE = {"type": "live", "position": "k3:0"}
CLOSE = object()
"""Ends a connection, without a close frame."""


def event(seq: int, user_id: str = "user_123", **more: Any) -> dict[str, Any]:
    return {
        "type": "app.note", "id": f"k3:{seq}", "seq": seq, "user_id": user_id,
        "timestamp": 1795222800123, "data": {"marker": f"m{seq}"}, **more,
    }  # fmt: skip


class ScriptedServer:
    """Says one list of messages on each connection, then waits; the last list also on all later ones."""

    def __init__(self, *scripts: Sequence[Any], statuses: Sequence[int] = ()) -> None:
        self._scripts = list(scripts)
        self._statuses = list(statuses)
        self.asked: list[str] = []
        """The ``after`` of each connection."""
        self.url = ""

    def _refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        if self._statuses:
            return connection.respond(HTTPStatus(self._statuses.pop(0)), "refused")
        self.asked.append(parse_qs(urlsplit(request.path).query)["after"][0])
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            for message in script:
                if message is CLOSE:
                    connection.transport.abort()
                    return
                await connection.send(message if isinstance(message, str) else json.dumps(message))
            await connection.wait_closed()
        except ConnectionClosed:
            return


@asynccontextmanager
async def scripted(
    *scripts: Sequence[Any], statuses: Sequence[int] = ()
) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer(*scripts, statuses=statuses)
    async with serve(
        server._serve, "127.0.0.1", 0, process_request=server._refuse,
        subprotocols=[Subprotocol("catenary.v1")], close_timeout=0.2,
    ) as running:  # fmt: skip
        port = next(iter(running.sockets)).getsockname()[1]
        server.url = f"ws://127.0.0.1:{port}/ws"
        yield server
    await asyncio.sleep(0)

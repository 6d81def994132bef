"""An echo server by ASGI messages, for conformance suites. Its argument is the port."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Return every message."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def main() -> None:
    uvicorn.run(
        echo,
        port=int(sys.argv[1]),
        http=HTTPProtocol,
        ws=WebSocketProtocol,
        lifespan="off",
        log_level="warning",
    )


if __name__ == "__main__":
    main()

"""
An echo server for conformance suites: /take over a takeover, all else by receive and send.

Prints its port on one line, and serves until it is killed.
"""

from __future__ import annotations

import socket
from typing import Any

import uvicorn

from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol
from catenary.serving.websocket_frames import BINARY, TEXT, frame
from catenary.transport import Transport


class TakeoverEcho:
    """Returns every message by the transport."""

    transport: Transport

    def message_received(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.transport.write(frame(TEXT, message.encode()))
        else:
            self.transport.write(frame(BINARY, message))

    def writable(self) -> None:
        pass

    def closed(self, code: int, reason: str) -> None:
        pass


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Echo on every path."""
    if scope["type"] != "websocket":
        return
    if scope["path"] == "/take":
        receiver = TakeoverEcho()
        receiver.transport = scope["extensions"]["catenary.takeover"](receiver)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        echo, http=HTTPProtocol, ws=WebSocketProtocol, lifespan="off", log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()

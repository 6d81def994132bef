"""What a server offers on one's own machine only: an echo, and credentials for the asking."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from catenary.auth import sign_token
from catenary.errors import ConnectionClosed
from catenary.serving.admission import Refusal
from catenary.serving.answers import answer, answered, read_json
from catenary.serving.websocket_frames import BINARY, TEXT, frame
from catenary.settings import is_loopback
from catenary.transport import Transport

TOKEN_SECONDS = 12 * 3600.0


class Echo:
    """Returns every message of one connection; reads no more while the peer takes none."""

    transport: Transport

    def message_received(self, message: str | bytes) -> None:
        """Send it back."""
        if isinstance(message, str):
            self.transport.write(frame(TEXT, message.encode()))
        else:
            self.transport.write(frame(BINARY, message))
        if self.transport.is_paused:
            self.transport.pause_reading()

    def writable(self) -> None:
        """Read on."""
        self.transport.resume_reading()

    def closed(self, code: int, reason: str) -> None:
        """Nothing is held."""


class EchoEndpoint:
    """``/echo``: an echo, for suites that test RFC 6455."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket, by takeover where the server has it."""
        takeover = scope.get("extensions", {}).get("catenary.takeover")
        await receive()
        if takeover is None:
            await _echo_plainly(receive, send)
            return
        echo = Echo()
        try:
            echo.transport = takeover(echo)
        except ConnectionClosed:
            return


async def _echo_plainly(receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class _Wish(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    user_id: str


class Credentials:
    """``POST /dev/credentials``: a token for any user, and the API key."""

    def __init__(self, *, secret: str | None, api_key: str | None) -> None:
        self._secret = secret
        self._api_key = api_key

    async def __call__(self, request: Request) -> Response:
        """Give them to whoever asks from this machine by its own name."""
        check_host(request)
        wish = await read_json(request, _Wish)
        told: dict[str, Any] = {"api_key": self._api_key}
        if self._secret is not None:
            told["token"] = sign_token(wish.user_id, secret=self._secret, ttl=TOKEN_SECONDS)
        return answer(told)


def check_host(request: HTTPConnection) -> None:
    """
    Refuse a request that does not name this machine.

    A page of another site may let its own name resolve to 127.0.0.1; its
    requests then arrive here with that name.

    Raises:
        Refusal: 403.
    """
    if not is_loopback(request.url.hostname or ""):
        raise Refusal(403, "forbidden", "this is for requests to localhost only")


def development_routes(*, secret: str | None, api_key: str | None) -> list[BaseRoute]:
    """Return the routes that ``--dev`` adds."""
    credentials = Credentials(secret=secret, api_key=api_key)
    return [
        WebSocketRoute("/echo", EchoEndpoint()),
        Route("/dev/credentials", answered(credentials.__call__), methods=["POST"]),
    ]

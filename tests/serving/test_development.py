"""What a server offers for development: an echo, and credentials for this machine."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from websockets.asyncio.client import connect

from catenary.auth import JwtVerifier
from catenary.serving.development import Echo, development_routes
from catenary.serving.websocket_frames import TEXT, frame
from catenary.transport import StallingTransport
from tests.serving.bridges import API_KEY, PLAIN, SECRET
from tests.serving.sockets import serving

APP = Starlette(routes=development_routes(secret=SECRET, api_key=API_KEY))


@pytest.mark.parametrize("options", [{}, PLAIN], ids=["takeover", "plain"])
async def test_the_echo_returns_every_message_as_it_came(options: dict[str, str]) -> None:
    """Text as text, bytes as bytes, on either path."""
    async with (
        serving(APP, **options) as server,
        connect(f"ws://127.0.0.1:{server.port}/echo", proxy=None) as websocket,
    ):
        for message in ("hello", "", b"\x00\xff", "ü" * 70_000):
            await websocket.send(message)
            assert await websocket.recv() == message


def test_the_echo_reads_no_more_from_a_peer_that_takes_nothing() -> None:
    """Its memory is bounded by the transport's."""
    echo = Echo()
    echo.transport = transport = StallingTransport(echo, high_water_bytes=10)
    transport.stall()
    transport.say("x" * 20)
    assert not transport.is_reading
    transport.drain()
    assert transport.is_reading
    assert transport.written == frame(TEXT, b"x" * 20)


async def asked(host: str, app: Starlette = APP) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
        return await http.post("/dev/credentials", json={"user_id": "user_123"})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000"])
async def test_whoever_asks_from_this_machine_gets_credentials(host: str) -> None:
    """The token is that user's, and taken by the verifier."""
    told = (await asked(host)).json()
    assert told["api_key"] == API_KEY
    identity = await JwtVerifier(secret=SECRET).verify(told["token"])
    assert identity.user_id == "user_123"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.5"])
async def test_a_page_whose_name_resolves_to_this_machine_gets_none(host: str) -> None:
    """Its requests arrive here with its own name."""
    response = await asked(host)
    assert response.status_code == 403
    assert SECRET not in response.text
    assert API_KEY not in response.text


async def test_without_a_secret_there_is_no_token() -> None:
    """Where keys are somebody else's, nothing here can sign."""
    app = Starlette(routes=development_routes(secret=None, api_key=None))
    assert (await asked("localhost", app)).json() == {"api_key": None}

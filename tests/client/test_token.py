"""Tokens: fresh for each attempt, refreshed on the open connection, refused for good."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest

from catenary.client.token import expiry, refresh_wait
from catenary.errors import AuthError, CatenaryError, CloseCode, ConnectionClosed

from .scripted import Visit, quick, scripted


def jwt(expires_in: float, name: str = "t") -> str:
    claims = {"sub": "user_123", "exp": time.time() + expires_in, "jti": name}
    parts = [{"alg": "HS256"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), "c2lnbmF0dXJl"])


class Tokens:
    """A function that brings another token each time."""

    def __init__(self, *tokens: str | BaseException) -> None:
        self.tokens = tokens
        self.calls = 0

    def __call__(self) -> str:
        token = self.tokens[min(self.calls, len(self.tokens) - 1)]
        self.calls += 1
        if isinstance(token, BaseException):
            raise token
        return token


async def greet_and_cut(visit: Visit) -> None:
    await visit.greet("k3:0" if visit.number == 1 else None)
    await visit.event(visit.number)
    if visit.number < 3:
        await visit.socket.close(4001)
    await visit.stay()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_fresh_token_for_each_attempt(is_async: bool) -> None:
    """The function, plain or async, is asked before each attempt."""
    tokens = Tokens("one", "two", "three")

    async def later() -> str:
        await asyncio.sleep(0)
        return tokens()

    token = later if is_async else tokens
    async with scripted(greet_and_cut) as server, quick(server.url, token=token) as client:
        for _ in range(3):
            await anext(client)
        shown = [visit.authorization for visit in server.visits]
        assert shown == ["Bearer one", "Bearer two", "Bearer three"]


async def test_a_fixed_token_is_shown_each_time() -> None:
    """A string is shown as it is, on every attempt, and never in the URL."""
    async with scripted(greet_and_cut) as server, quick(server.url, token="same") as client:
        for _ in range(3):
            await anext(client)
        assert {visit.authorization for visit in server.visits} == {"Bearer same"}
        assert not any("same" in request.path for request in server.requests)


@pytest.mark.parametrize(
    ("status", "code"), [(401, CloseCode.NOT_AUTHENTICATED), (403, CloseCode.FORBIDDEN)]
)
async def test_refused_credentials_are_final(status: int, code: CloseCode) -> None:
    """401 and 403 end the client with AuthError; with a fixed token at once."""

    def refuse(number: int, request: Any) -> tuple[int, dict[str, str]]:
        return status, {}

    async with scripted(greet_and_cut, refuse) as server, quick(server.url, token="x") as client:
        with pytest.raises(AuthError, match=f"answered {status}") as caught:
            await anext(client)
        assert (caught.value.status, caught.value.close_code) == (status, code)
        assert len(server.requests) == 1


async def test_another_token_is_tried_once() -> None:
    """A function gets one immediate chance to bring a token that is accepted."""
    tokens = Tokens("stale", "good")

    def refuse(number: int, request: Any) -> tuple[int, dict[str, str]] | None:
        return (401, {}) if request.headers["Authorization"] == "Bearer stale" else None

    async with (
        scripted(greet_and_cut, refuse) as server,
        quick(server.url, token=tokens) as client,
    ):
        await anext(client)
        assert tokens.calls == 2
        assert client.stats.attempts == 1


async def test_another_token_is_not_tried_twice() -> None:
    """If the second token is refused too, that is final."""
    tokens = Tokens("stale")

    def refuse(number: int, request: Any) -> tuple[int, dict[str, str]]:
        return 401, {}

    async with (
        scripted(greet_and_cut, refuse) as server,
        quick(server.url, token=tokens) as client,
    ):
        with pytest.raises(AuthError):
            await anext(client)
        assert tokens.calls == len(server.requests) == 2


@pytest.mark.parametrize("code", [4501, 4503])
async def test_refused_by_a_close_code(code: int) -> None:
    """A refusal by close code before connected is AuthError too, after one more try."""

    async def script(visit: Visit) -> None:
        await visit.socket.close(code, "not you")

    tokens = Tokens("a", "b")
    async with scripted(script) as server, quick(server.url, token=tokens) as client:
        with pytest.raises(AuthError, match="not you") as caught:
            await anext(client)
        assert caught.value.close_code == code
        assert tokens.calls == len(server.visits) == 2


async def test_a_bad_request_is_final() -> None:
    """400 ends the client and says what the server said."""

    def refuse(number: int, request: Any) -> tuple[int, dict[str, str]]:
        return 400, {}

    async with scripted(greet_and_cut, refuse) as server, quick(server.url) as client:
        with pytest.raises(ConnectionClosed, match="answered 400"):
            await anext(client)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(status: int) -> None:
    """After 429 and 503 the client waits as long as Retry-After says."""

    def refuse(number: int, request: Any) -> tuple[int, dict[str, str]] | None:
        return (status, {"Retry-After": "1"}) if number == 1 else None

    async with scripted(greet_and_cut, refuse) as server, quick(server.url) as client:
        started = asyncio.get_running_loop().time()
        await anext(client)
        assert 0.99 <= asyncio.get_running_loop().time() - started < 5


async def test_a_token_function_that_fails_is_asked_again() -> None:
    """A token service that is away delays the client, and does not end it."""
    tokens = Tokens(OSError("away"), ValueError("half a page"), "good")
    async with scripted(greet_and_cut) as server, quick(server.url, token=tokens) as client:
        await anext(client)
        assert server.visits[0].authorization == "Bearer good"
        assert client.stats.attempts == 3


async def test_a_token_function_can_give_up() -> None:
    """An error of this package from the token function ends the client."""
    tokens = Tokens(AuthError("signed out"))
    async with scripted(greet_and_cut) as server, quick(server.url, token=tokens) as client:
        with pytest.raises(CatenaryError, match="signed out"):
            await anext(client)
        assert server.requests == []


async def test_the_token_is_refreshed_on_the_open_connection() -> None:
    """Before a token expires the next one is shown in an auth message."""
    first, second = jwt(2.2, "first"), jwt(3600, "second")
    tokens = Tokens(first, second)
    shown = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        message = await visit.receive("auth")
        await visit.send({"type": "auth_ok", "expires_at": 1})
        assert message["token"] == second
        shown.set()
        await visit.stay()

    async with scripted(script) as server, quick(server.url, token=tokens):
        await asyncio.wait_for(shown.wait(), 5)
        assert server.visits[0].authorization == f"Bearer {first}"
        assert len(server.visits) == 1


def test_expiry_is_read_from_the_payload() -> None:
    """The expiry of a JWT is its exp; what is no JWT has none."""
    now = time.time()
    assert expiry(jwt(100)) == pytest.approx(now + 100, abs=1)
    for token in (None, "", "opaque", "a.b.c", "a.!!!.c", "e30.e30.x", "e30.bnVsbA.x", "é.é.é"):
        assert expiry(token) is None


def test_when_to_refresh() -> None:
    """A minute before the end, or in the middle of what is left, and never in a hurry."""
    assert refresh_wait(3600, 0) == 3540
    assert refresh_wait(100, 0) == 50
    assert refresh_wait(10, 20) == 1

"""Where operators ask: the running server, or the file of one that does not run."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from catenary.auth import sign_token
from catenary.errors import CatenaryError, ConfigError
from catenary.factory import WebSocketBridgeFactory
from catenary.serving.asgi import BridgeApp
from catenary.settings import Settings, is_loopback, revealed

TIMEOUT_SECONDS = 30.0


class Refused(CatenaryError):
    """The server's refusal, in its words, with what to do."""


class Desk:
    """
    The operators' endpoints of one server.

    ``is_local`` says that no server runs: this process has its file open.
    """

    def __init__(
        self, http: httpx.AsyncClient, settings: Settings, api_key: str | None, *, is_local: bool
    ) -> None:
        self._http = http
        self._settings = settings
        self._api_key = api_key
        self.is_local = is_local

    async def ask(
        self, method: str, path: str, *, body: Any = None, query: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """
        Send one request and return the JSON of its answer.

        Raises:
            Refused: If the server refuses; ``httpx.HTTPError`` if it cannot be reached.
        """
        headers = {} if self._api_key is None else {"authorization": f"Bearer {self._api_key}"}
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        response = await self._http.request(method, path, json=body, params=asked, headers=headers)
        if response.is_success:
            answer: dict[str, Any] = response.json()
            return answer
        raise Refused(_explained(response))

    async def token(self, user_id: str) -> str:
        """
        Return a token for a user: signed with the configured secret, or a development server's.

        Raises:
            ConfigError: If there is neither.
        """
        secret = revealed(self._settings.jwt_secret)
        if secret is not None:
            return signed_token(self._settings, user_id)
        told = await _development_credentials(self._http, user_id)
        if "token" not in told:
            raise ConfigError(
                "there is no secret here to sign a token with. Give CATENARY_JWT_SECRET, or a "
                "token of that user with --token"
            )
        return str(told["token"])


def signed_token(settings: Settings, user_id: str, **options: Any) -> str:
    """
    Return a token signed with the configured secret.

    Raises:
        ConfigError: If there is none.
    """
    secret = revealed(settings.jwt_secret)
    if secret is None:
        raise ConfigError(
            "CATENARY_JWT_SECRET is not set, so there is nothing to sign with. A server started "
            "with --dev and no secret prints a token of its own"
        )
    names = {"issuer": settings.jwt_issuer, "audience": settings.jwt_audience}
    claims: dict[str, Any] = {name: values[0] for name, values in names.items() if values}
    return sign_token(user_id, secret=secret, **claims, **options)


@asynccontextmanager
async def desk_of(settings: Settings) -> AsyncIterator[Desk]:
    """
    Reach the running server; where none runs, open the log itself: a file, or a shared one.

    Raises:
        ConfigError: If there is neither.
        LogUnavailable: If a process has the file that is not at that URL.
    """
    url = settings.server_url
    trusts = not is_loopback(urlsplit(url).hostname or "")
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=trusts) as http:
        if await _answers(http):
            key = revealed(settings.api_key)
            if key is None:
                told = await _development_credentials(http, "operator")
                key = told.get("api_key")
            yield Desk(http, settings, key, is_local=False)
            return
    if settings.url is not None or not _can_open(settings.log):
        raise ConfigError(
            f"no server answers at {url}. Start one with `catenary serve`, name it with --url or "
            "CATENARY_URL, or name with --log the file of a server that does not run, a Redis or a NATS"
        )
    async with _local_desk(settings) as desk:
        yield desk


@asynccontextmanager
async def _local_desk(settings: Settings) -> AsyncIterator[Desk]:
    key = secrets.token_urlsafe(24)
    factory = WebSocketBridgeFactory(log=settings.log)
    transport = httpx.ASGITransport(BridgeApp(factory, api_key=key))
    async with (
        factory,
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield Desk(http, settings, key, is_local=True)


async def _answers(http: httpx.AsyncClient) -> bool:
    try:
        await http.get("/healthz")
    except httpx.ConnectError:
        return False
    return True


async def _development_credentials(http: httpx.AsyncClient, user_id: str) -> dict[str, Any]:
    response = await http.post("/dev/credentials", json={"user_id": user_id})
    told: dict[str, Any] = response.json() if response.is_success else {}
    return told


def _can_open(log: str) -> bool:
    parts = urlsplit(log)
    if parts.scheme in ("redis", "rediss", "nats", "tls"):
        return True
    return parts.scheme == "sqlite" and Path(unquote(parts.path).removeprefix("/")).is_file()


def _explained(response: httpx.Response) -> str:
    try:
        said = response.json()["message"]
    except (ValueError, KeyError, TypeError):
        said = f"the server answered {response.status_code}"
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return f"{said}. Give the server's key: CATENARY_API_KEY or --api-key"
    if response.status_code == httpx.codes.FORBIDDEN:
        return f"{said}. Start it with CATENARY_API_KEY, and give the same key here"
    return str(said)


def user_path(user_id: str, what: str) -> str:
    """Return the path of something of a user's."""
    return f"/api/users/{quote(user_id, safe='')}/{what}"


def run_path(run_id: str, what: str) -> str:
    """Return the path of something that is done to a run."""
    return f"/api/runs/{quote(run_id, safe='')}/{what}"

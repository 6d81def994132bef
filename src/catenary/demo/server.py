"""
The demo's server: a bridge, the agent, and the page at ``/``.

For one's own machine: whoever opens the page is a user of their own, without
signing in. The page's token is signed with a secret that lies beside the log,
so that a restart of the server interrupts nobody.
"""

from __future__ import annotations

import functools
import os
import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from catenary.auth import Identity, JwtVerifier, sign_token
from catenary.demo.agent import answer as answer_question
from catenary.demo.library import Library
from catenary.emitter import UserWebSocketEmitter
from catenary.errors import AuthError, ConfigError
from catenary.factory import WebSocketBridgeFactory
from catenary.inbound import Message
from catenary.serving.admission import Refusal
from catenary.serving.answers import answer, answered, read_json
from catenary.serving.asgi import BridgeApp
from catenary.serving.development import check_host, development_routes
from catenary.settings import Settings, revealed, secured, verifier
from catenary.transport import FrontTransport, HoldingTransport, Transport

STATIC = Path(__file__).parent / "static"
AGENT_NAME = "librarian"
TOKEN_SECONDS = 3600.0
RENEWED_FOR_SECONDS = 30 * 24 * 3600.0
"""A page that comes back within this is the same user, though its token has expired."""
SLOW_MAX_SECONDS = 60.0
QUESTION_MAX_CHARS = 4000

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def demo_app(settings: Settings, *, pace: float = 0.02) -> BridgeApp:
    """
    Return the demo as an application.

    Args:
        settings: With ``dev`` on; the secret, if none is given, is kept beside the log's file.
        pace: The pause after each word of an answer, in seconds.

    Raises:
        ConfigError: If the secret beside the log cannot be kept.
    """
    settings = secured(_with_kept_secret(settings))
    factory = WebSocketBridgeFactory(
        log=settings.log,
        limits=settings.limits(),
        run_drain_timeout=settings.run_drain_timeout,
    )
    _answer_questions(factory, pace)
    secret, api_key = revealed(settings.jwt_secret), revealed(settings.api_key)
    return BridgeApp(
        factory,
        verifier=verifier(settings),
        api_key=api_key,
        open_metrics=True,
        expects=["user_message"],
        routes=[
            *_page_routes(factory, secret or "", verifier(settings)),
            *development_routes(secret=secret, api_key=api_key),
        ],
    )


def _answer_questions(factory: WebSocketBridgeFactory, pace: float) -> None:
    library = Library.find()
    agent = functools.partial(answer_question, library=library, pace=pace)

    @factory.on_message("user_message")
    async def answer_in_a_run(message: Message, emitter: UserWebSocketEmitter) -> dict[str, str]:
        content = message.data.get("content") if isinstance(message.data, dict) else None
        question = str(content or "")[:QUESTION_MAX_CHARS]
        return {"run_id": emitter.start_run(agent, question, agent_name=AGENT_NAME).run_id}


# The secret


def _with_kept_secret(settings: Settings) -> Settings:
    parts = urlsplit(settings.log)
    if settings.has_key or parts.scheme != "sqlite":
        return settings
    path = Path(unquote(parts.path).removeprefix("/")).resolve()
    secret = kept_secret(path.with_name(f"{path.name}.secret"))
    return settings.model_copy(update={"jwt_secret": SecretStr(secret)})


def kept_secret(path: Path) -> str:
    """
    Return the secret in a file that only its owner reads; make it, the first time.

    Raises:
        ConfigError: If the file cannot be read or made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"the demo keeps its secret in {path}: {error.strerror}. Let this user write there, "
            "or put the log elsewhere with --log"
        ) from error


# The page


def _page_routes(
    factory: WebSocketBridgeFactory, secret: str, checks: JwtVerifier
) -> list[BaseRoute]:
    sessions = Sessions(secret)
    slowness = Slowness(factory, checks)
    return [
        Route("/", answered(_page)),
        Route("/demo/session", answered(sessions.__call__), methods=["POST"]),
        Route("/demo/slow", answered(slowness.__call__), methods=["POST"]),
        Mount("/static", _Static(directory=STATIC)),
    ]


async def _page(request: Request) -> Response:
    check_host(request)
    # Its own host is named, for some browsers do not count ws:// among 'self'.
    policy = _POLICY.format(host=request.url.netloc)
    headers = {**_HEADERS, "content-security-policy": policy}
    return FileResponse(STATIC / "index.html", headers=headers)


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


class _Former(msgspec.Struct, kw_only=True):
    token: str | None = None


class Sessions:
    """``POST /demo/session``: a token; for whoever shows a former one, as the same user."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        # A token that has expired still says who its page was.
        self._verifier = JwtVerifier(secret=secret, leeway=RENEWED_FOR_SECONDS)

    async def __call__(self, request: Request) -> Response:
        """Return a token, its user, and when it expires, in seconds since 1970."""
        check_host(request)
        former = await read_json(request, _Former)
        user_id = await self._user_of(former.token) or f"user_{secrets.token_hex(6)}"
        token = sign_token(user_id, secret=self._secret, ttl=TOKEN_SECONDS)
        identity = await self._verifier.verify(token)
        return answer({"token": token, "user_id": user_id, "expires_at": identity.expires_at})

    async def _user_of(self, token: str | None) -> str | None:
        if not token:
            return None
        try:
            identity: Identity = await self._verifier.verify(token)
        except AuthError:
            return None
        return identity.user_id


class _Slow(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    connection_id: str
    seconds: float


class Slowness:
    """``POST /demo/slow``: hold one connection of the caller's back, as a slow reader would."""

    def __init__(self, factory: WebSocketBridgeFactory, checks: JwtVerifier) -> None:
        self._factory = factory
        self._verifier = checks

    async def __call__(self, request: Request) -> Response:
        """Begin; the connection's cursor goes on by itself after that time."""
        identity = await self._identity(request)
        wish = await read_json(request, _Slow)
        if not 0 < wish.seconds <= SLOW_MAX_SECONDS:
            text = f"seconds is more than 0 and at most {SLOW_MAX_SECONDS:g}"
            raise Refusal(400, "bad_request", text)
        connection = self._factory.manager.find(identity.user_id, wish.connection_id)
        if connection is None:
            raise Refusal(404, "not_found", "no such connection")
        transport = _holding(connection.transport)
        if transport is None:
            transport = connection.transport = HoldingTransport(connection.transport, connection)
        if transport.is_holding:
            raise Refusal(409, "conflict", "this connection is slow already")
        transport.hold()
        connection.hub.loop.call_later(wish.seconds, transport.release)
        return answer({"connection_id": wish.connection_id, "seconds": wish.seconds})

    async def _identity(self, request: Request) -> Identity:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            return await self._verifier.verify(token if scheme.lower() == "bearer" else "")
        except AuthError as error:
            raise Refusal(401, "unauthorized", str(error)) from None


def _holding(transport: Transport) -> HoldingTransport | None:
    """Return what holds a connection back already, also behind others that came before it."""
    while isinstance(transport, FrontTransport):
        if isinstance(transport, HoldingTransport):
            return transport
        transport = transport.behind
    return None

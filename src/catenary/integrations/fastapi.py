"""
FastAPI: the bridge as a router, and who is asking as dependencies.

::

    app = FastAPI()
    app.include_router(catenary_router(factory, authenticate=who_is_this), prefix="/live")

    @app.post("/ask")
    async def ask(question: Question, emitter: UserEmitter) -> dict[str, str]:
        return {"run_id": emitter.start_run(answer, question.text).run_id}

Run with ``uvicorn --ws catenary.serving:WebSocketProtocol --http
catenary.serving:HTTPProtocol`` WebSockets take the fast path; under any other
ASGI server the same guarantees hold.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Message

from catenary.auth import Authenticate, Identity
from catenary.emitter import UserWebSocketEmitter
from catenary.errors import ConfigError, UsageError
from catenary.factory import WebSocketBridgeFactory
from catenary.serving.admission import Refusal
from catenary.serving.endpoints import Endpoints
from catenary.serving.lifespan import Lifespan

_ANSWER = "catenary.identity"


def catenary_router(
    factory: WebSocketBridgeFactory,
    *,
    authenticate: Callable[..., Any] | params.Depends,
    wires: Sequence[str] = (),
    api: bool = False,
    health: bool = False,
    metrics: bool = False,
    **options: Any,
) -> APIRouter:
    """
    Return a router with ``/ws``, ``/sse``, ``/api/messages`` and ``/api/tickets``.

    Include it under any prefix. The application's lifespan starts the factory
    and, at its end, drains and stops it; call ``factory.drain()`` before to
    close connections in order while the server still listens.

    Args:
        factory: The bridge.
        authenticate: ``async (HTTPConnection) -> Identity | str | None``, or a
            FastAPI dependency that answers one of these: a function with
            parameters of its own, or ``Depends(…)``. An ``HTTPException`` from
            it refuses: 401, 403, or 503 for "try again". Dependencies with
            ``yield`` end before the connection is served, and a body cannot be
            read.
        wires: Whose clients are served too: ``ai-sdk``, ``ag-ui``, ``tanstack``.
        api: Also the API of producers and operators (``api_key=``).
        health: Also ``/healthz`` and ``/readyz``.
        metrics: Also ``/metrics`` (``metrics_key=``, or ``open_metrics=True``).
        options: As of :class:`catenary.serving.endpoints.Endpoints`.

    Raises:
        ConfigError: If an option is wrong.
    """
    endpoints = Endpoints(factory, authenticate=_asking(authenticate), wires=wires, **options)
    routes: list[BaseRoute] = endpoints.client_routes()
    routes += endpoints.api_routes() if api else []
    routes += endpoints.health_routes() if health else []
    routes += endpoints.metrics_routes() if metrics else []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        known = getattr(app.state, "catenary", endpoints)
        if known is not endpoints:
            raise ConfigError("an application has one bridge; its router was included twice")
        app.state.catenary = endpoints
        async with Lifespan(factory):
            yield

    return APIRouter(routes=routes, lifespan=lifespan)


# Who is asking, for an application's own endpoints


def _endpoints(connection: HTTPConnection) -> Endpoints:
    endpoints = getattr(connection.app.state, "catenary", None)
    if not isinstance(endpoints, Endpoints):
        raise UsageError(
            "no bridge has started in this application: include catenary_router() in it, and let "
            "its lifespan run (a TestClient runs it inside `with`)"
        )
    return endpoints


async def _identity(connection: HTTPConnection) -> Identity:
    try:
        return await _endpoints(connection).admission.require(connection)
    except Refusal as refusal:
        raise HTTPException(refusal.status, refusal.message, refusal.headers) from None


CurrentIdentity = Annotated[Identity, Depends(_identity)]
"""Whoever the request's credentials name, by the router's ``authenticate``; else 401 or 403."""


async def _emitter(connection: HTTPConnection, identity: CurrentIdentity) -> UserWebSocketEmitter:
    return await _endpoints(connection).factory.create_user_emitter(identity.user_id)


UserEmitter = Annotated[UserWebSocketEmitter, Depends(_emitter)]
"""An emitter for whoever is asking; each ``agent_started`` begins a new run."""


# An application's dependency, asked outside of an endpoint


def _asking(authenticate: Callable[..., Any] | params.Depends) -> Authenticate:
    if isinstance(authenticate, params.Depends):
        return _Solved(authenticate)
    if _takes_a_connection(authenticate):
        return authenticate
    return _Solved(Depends(authenticate))


def _takes_a_connection(function: Callable[..., Any]) -> bool:
    """Whether ``function`` is to be called with the connection and nothing else."""
    parameters = list(inspect.signature(function).parameters.values())
    if not inspect.iscoroutinefunction(function) or len(parameters) != 1:
        return False
    (only,) = parameters
    names = {"HTTPConnection", "Request"}
    written = getattr(only.annotation, "__name__", str(only.annotation)).rpartition(".")[2]
    is_plain = only.annotation is only.empty or written in names
    return is_plain and only.default is only.empty


class _Solved:
    """
    A dependency, solved by FastAPI with all of its own for each connection.

    FastAPI solves dependencies for its endpoints. So there is one, reached by
    no path: it gets the connection as a GET without a body, and keeps what the
    dependency answered.
    """

    def __init__(self, dependency: params.Depends) -> None:
        async def endpoint(request: Request, answer: Any = dependency) -> Response:
            request.scope[_ANSWER] = answer
            return Response()

        self._endpoint = endpoint
        self._app: Any = None
        self._route: APIRoute | None = None

    async def __call__(self, connection: HTTPConnection) -> Identity | str | None:
        scope = {**connection.scope, "type": "http", "method": "GET"}
        # What the dependency raises comes to the caller, not to the application's handlers.
        scope.pop("starlette.exception_handlers", None)
        try:
            await self._solver(scope.get("app")).app(scope, _no_body, _nowhere)
        except RequestValidationError:
            return None
        answer: Identity | str | None = scope[_ANSWER]
        return answer

    def _solver(self, app: Any) -> APIRoute:
        """Return the endpoint, which asks ``app`` for what overrides a dependency in tests."""
        if self._route is None or self._app is not app:
            self._app = app
            self._route = APIRoute(
                "/", self._endpoint, response_model=None, dependency_overrides_provider=app
            )
        return self._route


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _nowhere(message: Message) -> None:
    """The answer of the endpoint goes to nobody."""

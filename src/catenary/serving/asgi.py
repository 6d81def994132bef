"""The bridge as an ASGI application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from catenary.factory import WebSocketBridgeFactory
from catenary.serving.answers import defect, http_error
from catenary.serving.endpoints import Endpoints
from catenary.serving.lifespan import Lifespan


class BridgeApp:
    """
    An ASGI application with every endpoint of a bridge.

    Serve it, or mount it and call ``factory.start()`` and ``stop()`` yourself.
    As the outermost application its lifespan does that. ``options`` are those
    of :class:`catenary.serving.endpoints.Endpoints`; ``routes`` are served
    beside them.
    """

    def __init__(
        self,
        factory: WebSocketBridgeFactory,
        *,
        allowed_origins: Sequence[str] = (),
        routes: Sequence[BaseRoute] = (),
        **options: Any,
    ) -> None:
        self.factory = factory
        endpoints = self.endpoints = Endpoints(factory, allowed_origins=allowed_origins, **options)
        self._app = Starlette(
            routes=[
                *endpoints.client_routes(),
                *endpoints.api_routes(),
                *endpoints.health_routes(),
                *endpoints.metrics_routes(),
                *routes,
            ],
            middleware=_cross_origin(allowed_origins),
            exception_handlers={HTTPException: http_error, Exception: defect},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, connection or lifespan."""
        if scope["type"] == "lifespan":
            await receive()
            async with Lifespan(self.factory):
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await self._app(scope, receive, send)


def _cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """Let the pages of these origins read answers; the origin of a WebSocket is checked by us."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=[
                "authorization",
                "content-type",
                "idempotency-key",
                "last-event-id",
                "x-run-id",
            ],
            expose_headers=["retry-after"],
            allow_credentials=True,
            max_age=600,
        )
    ]

"""The bridge as an ASGI application."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Receive, Scope, Send

from catenary.auth import Authenticate, Authenticator, JwtVerifier
from catenary.control import Control
from catenary.factory import WebSocketBridgeFactory
from catenary.serving.admission import Admission
from catenary.serving.native import NativeEndpoint
from catenary.tickets import Tickets


class BridgeApp:
    """
    An ASGI application with every endpoint of a bridge.

    Serve it, or mount it and call ``factory.start()`` and ``stop()`` yourself.
    As the outermost application its lifespan does that.
    """

    def __init__(
        self,
        factory: WebSocketBridgeFactory,
        *,
        authenticate: Authenticate | None = None,
        verifier: JwtVerifier | None = None,
        allowed_origins: Sequence[str] = (),
        cookie_name: str | None = None,
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        self.factory = factory
        self.tickets = Tickets(factory.log)
        authenticator = Authenticator(
            verifier=verifier,
            tickets=self.tickets,
            allowed_origins=allowed_origins,
            cookie_name=cookie_name,
            authenticate=authenticate,
        )
        self.admission = Admission(factory, authenticator)
        control = Control(factory.service, authenticator, factory.limits)
        self.native = NativeEndpoint(self.admission, control)
        self._app = Starlette(
            routes=[WebSocketRoute("/ws", endpoint=self.native), *routes],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, connection or lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.factory.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.factory.stop()
        await send({"type": "lifespan.shutdown.complete"})

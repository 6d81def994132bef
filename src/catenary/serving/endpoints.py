"""Every endpoint of a bridge, as routes for whatever application serves them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute

from catenary.auth import Authenticate, Authenticator, JwtVerifier
from catenary.auth.api_keys import ApiKeys
from catenary.control import Control
from catenary.factory import WebSocketBridgeFactory
from catenary.serving.admission import Admission
from catenary.serving.answers import answer, route
from catenary.serving.health import Health, Metrics
from catenary.serving.messages import Messages, TicketOffice
from catenary.serving.native import NativeEndpoint
from catenary.serving.operators import Operators
from catenary.serving.producers import COMMIT_TIMEOUT, Producers
from catenary.serving.sse import SseEndpoint
from catenary.serving.wire_socket import OnAbort
from catenary.serving.wires import Wires
from catenary.tickets import Tickets


class Endpoints:
    """
    What a bridge answers over HTTP and WebSocket.

    Args:
        authenticate: An application's own way to tell who connects.
        verifier: Verifies tokens, if there is no ``authenticate``.
        allowed_origins: The pages that may connect; empty means the server's own.
        cookie_name: The cookie that may carry a token.
        api_key: The key, or keys, of producers and operators; without one
            nothing can be published over HTTP.
        metrics_key: A key for ``/metrics`` alone, beside the API key.
        open_metrics: Show metrics to anybody who can reach the port.
        expects: Message types without whose handlers the bridge is not ready.
        commit_timeout: How long a producer waits for the log, in seconds.
        wires: Whose clients are served too: ``ai-sdk``, ``ag-ui``, ``tanstack``.
        on_abort: What the abort of a client on these wires does: ``cancel`` the
            run, or ``detach`` from it.

    Raises:
        ConfigError: If a key is too weak, an origin is not one, or a wire is unknown.
    """

    def __init__(
        self,
        factory: WebSocketBridgeFactory,
        *,
        authenticate: Authenticate | None = None,
        verifier: JwtVerifier | None = None,
        allowed_origins: Sequence[str] = (),
        cookie_name: str | None = None,
        api_key: str | Sequence[str] | None = None,
        metrics_key: str | Sequence[str] | None = None,
        open_metrics: bool = False,
        expects: Sequence[str] = (),
        commit_timeout: float = COMMIT_TIMEOUT,
        wires: Sequence[str] = (),
        on_abort: OnAbort = "cancel",
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
        self.admission = Admission(factory, authenticator, expects=expects)
        control = Control(factory.service, authenticator, factory.limits)
        keys = ApiKeys(api_key)
        self.native = NativeEndpoint(self.admission, control)
        self._sse = SseEndpoint(self.admission)
        self._messages = Messages(self.admission, control)
        self._tickets = TicketOffice(self.admission, self.tickets)
        self._producers = Producers(self.admission, keys, commit_timeout=commit_timeout)
        self._operators = Operators(self.admission, keys, self._producers)
        self._wires = Wires(self.admission, wires, on_abort=on_abort)
        self._health = Health(self.admission)
        both = [*_listed(api_key), *_listed(metrics_key)]
        self._metrics = Metrics(self.admission, ApiKeys(both), is_open=open_metrics)

    def client_routes(self) -> list[BaseRoute]:
        """Return what browsers and other clients use, with the user's own credentials."""
        return [
            WebSocketRoute("/ws", endpoint=self.native),
            route("/ws", _upgrade_required, "GET"),
            route("/sse", self._sse.__call__, "GET"),
            route("/api/messages", self._messages.__call__, "POST"),
            route("/api/tickets", self._tickets.__call__, "POST"),
            *self._wires.routes(),
        ]

    def api_routes(self) -> list[BaseRoute]:
        """Return what producers and operators use; users may read and cancel their own."""
        producers, operators = self._producers, self._operators
        user = "/api/users/{user_id:path}"
        return [
            route(f"{user}/events", producers.publish, "POST"),
            route(f"{user}/events", producers.events, "GET"),
            route(f"{user}/runs", producers.runs, "GET"),
            route(f"{user}/erase", operators.erase, "POST"),
            route(f"{user}/disconnect", operators.disconnect, "POST"),
            route("/api/runs/{run_id:path}/cancel", operators.cancel, "POST"),
            route("/api/runs/{run_id:path}/close", operators.close, "POST"),
            route("/api/inspect", operators.inspect, "GET"),
            route("/api/drain", operators.drain, "POST"),
        ]

    def health_routes(self) -> list[BaseRoute]:
        """Return what orchestrators ask."""
        return [
            route("/healthz", self._health.alive, "GET"),
            route("/readyz", self._health.ready, "GET"),
        ]

    def metrics_routes(self) -> list[BaseRoute]:
        """Return what Prometheus asks."""
        return [route("/metrics", self._metrics.__call__, "GET")]


def _listed(keys: str | Sequence[str] | None) -> list[str]:
    return [keys] if isinstance(keys, str) else list(keys or ())


async def _upgrade_required(request: Request) -> Response:  # noqa: ARG001 - an endpoint
    text = "this is a WebSocket: connect with ws:// or wss://, or read GET /sse instead"
    return answer({"error": "upgrade_required", "message": text}, 426, upgrade="websocket")

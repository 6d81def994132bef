"""Alive, ready, and measured: what orchestrators and Prometheus ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from catenary.auth.api_keys import ApiKeys
from catenary.serving.admission import Admission, Refusal
from catenary.serving.answers import answer

if TYPE_CHECKING:
    from catenary.observe.metrics import BridgeMetrics

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """``/healthz`` and ``/readyz``, which need no credentials and tell nothing of users."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def alive(self, request: Request) -> Response:
        """Answer 200 while the event loop turns."""
        return answer({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """Answer 200 if connections are let in; else 503, ``Retry-After`` and why."""
        self._admission.check_ready()
        return answer({"status": "ready"})


class Metrics:
    """``/metrics``, for whoever shows a key; openly only if that was configured."""

    def __init__(self, admission: Admission, keys: ApiKeys, *, is_open: bool) -> None:
        self._factory = admission.factory
        self._keys = keys
        self._is_open = is_open
        self._metrics: BridgeMetrics | None = None

    async def __call__(self, request: Request) -> Response:
        """Return every metric as Prometheus reads them."""
        if not self._is_open and not self._keys.accepts(request):
            if self._keys.is_empty:
                raise Refusal(403, "forbidden", "this server has no key for metrics configured")
            raise Refusal(401, "unauthorized", "metrics need their key, or the API key")
        return Response(
            self._gathered().exposition(),
            headers={"content-type": METRICS_TYPE, "cache-control": "no-store"},
        )

    def _gathered(self) -> BridgeMetrics:
        if self._metrics is None:
            # Loaded with the first scrape: many processes are never scraped.
            from catenary.observe.metrics import BridgeMetrics  # noqa: PLC0415

            self._metrics = BridgeMetrics(self._factory)
        return self._metrics

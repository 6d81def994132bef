"""Serving a bridge: protocols for uvicorn, and the ASGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catenary.serving.http_protocol import HTTPProtocol
    from catenary.serving.websocket import WebSocketProtocol

__all__ = ["HTTPProtocol", "WebSocketProtocol"]


def __getattr__(name: str) -> Any:
    """Load a protocol when it is asked for, as ``uvicorn --ws catenary.serving:…`` does."""
    if name == "WebSocketProtocol":
        from catenary.serving.websocket import WebSocketProtocol  # noqa: PLC0415

        return WebSocketProtocol
    if name == "HTTPProtocol":
        from catenary.serving.http_protocol import HTTPProtocol  # noqa: PLC0415

        return HTTPProtocol
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

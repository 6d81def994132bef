from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Mapping

import pytest

_ON_BOTH_LOOPS = {
    "test_http_protocol.py",
    "test_websocket_asgi.py",
    "test_websocket_flow.py",
    "test_websocket_handshake.py",
    "test_websocket_protocol.py",
    "test_websocket_tls.py",
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What depends on the loop's transports is tested on asyncio's own and on uvloop."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in _ON_BOTH_LOOPS and importlib.util.find_spec("uvloop"):
        import uvloop  # noqa: PLC0415

        loops["uvloop"] = uvloop.new_event_loop
    return loops

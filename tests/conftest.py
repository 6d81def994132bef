"""What every test may use."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest_asyncio

from catenary import UserWebSocketContext, UserWebSocketEmitter, WebSocketBridgeFactory

pytest_plugins = ["pytester", "tests.campaigns"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell in the background lets Ctrl+C be ignored, and processes that tests start inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest_asyncio.fixture
async def factory() -> AsyncIterator[WebSocketBridgeFactory]:
    """A started bridge over a log of its own."""
    async with WebSocketBridgeFactory(log="memory://?private", run_drain_timeout=0.5) as bridge:
        yield bridge


@pytest_asyncio.fixture
async def emitter(factory: WebSocketBridgeFactory) -> UserWebSocketEmitter:
    """An emitter for ``user_123`` in thread ``t1``."""
    return factory.get_user_emitter(UserWebSocketContext(user_id="user_123", thread_id="t1"))

"""The fixtures of the pytest plugin."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator

import pytest

from catenary.factory import WebSocketBridgeFactory
from catenary.testing.bridge import BridgeUnderTest
from catenary.validate.chaos import BlockingChaosProxy
from catenary.validate.checker import OrderingChecker
from catenary.validate.threads import ThreadMonitor


@pytest.fixture
def catenary_factory() -> WebSocketBridgeFactory:
    """
    The bridge that is tested: an empty one over a log of its own, in memory.

    Redefine it in ``conftest.py`` to test your own, with its handlers.
    """
    return WebSocketBridgeFactory("memory://?private", run_drain_timeout=0.5)


@pytest.fixture
def catenary_bridge(catenary_factory: WebSocketBridgeFactory) -> Iterator[BridgeUnderTest]:
    """The bridge behind a real server, on a free port of this machine and a thread of its own."""
    with BridgeUnderTest(catenary_factory) as bridge:
        yield bridge


@pytest.fixture
def catenary_users() -> Callable[[int], list[str]]:
    """A function that returns so many ids of users whom no other test knows."""
    numbers = itertools.count(1)
    nonce = secrets.token_hex(3)
    return lambda count: [f"user_{nonce}_{next(numbers)}" for _ in range(count)]


@pytest.fixture
def catenary_chaos(catenary_bridge: BridgeUnderTest) -> Iterator[BlockingChaosProxy]:
    """
    A network in front of the bridge, calm until the test breaks it.

    Clients reach the bridge through it at ``url_for(catenary_bridge.websocket_url)``.
    """
    with BlockingChaosProxy(catenary_bridge.websocket_url) as network:
        yield network


@pytest.fixture
def catenary_checker() -> OrderingChecker:
    """A checker that says whether readers got every event, once, in order."""
    return OrderingChecker()


@pytest.fixture
def catenary_threads(catenary_factory: WebSocketBridgeFactory) -> Iterator[ThreadMonitor]:
    """A monitor that watches the bridge during the test, and fails it for a violation."""
    monitor = ThreadMonitor()
    with monitor.watching(catenary_factory):
        yield monitor
    monitor.check()

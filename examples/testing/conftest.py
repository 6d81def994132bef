"""The fixtures, with this application's bridge."""

import pytest
from agent import make_bridge

from catenary import WebSocketBridgeFactory

pytest_plugins = ["catenary.testing"]


@pytest.fixture
def catenary_factory() -> WebSocketBridgeFactory:
    """The bridge that the tests serve."""
    return make_bridge("memory://?private")

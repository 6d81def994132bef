"""An application that cannot be made while the file that ``BROKEN`` names is there."""

from __future__ import annotations

import os
from pathlib import Path

from catenary import WebSocketBridgeFactory
from catenary.errors import ConfigError

BROKEN = "CATENARY_TEST_BROKEN"


def make_bridge(log: str) -> WebSocketBridgeFactory:
    """Return a bridge."""
    if Path(os.environ[BROKEN]).exists():
        raise ConfigError("it is broken")
    return WebSocketBridgeFactory(log)

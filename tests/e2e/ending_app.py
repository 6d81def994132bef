"""An application that ends its process."""

from __future__ import annotations

import os

from catenary import WebSocketBridgeFactory


def make_bridge(log: str) -> WebSocketBridgeFactory:
    """End without a word."""
    os._exit(7)

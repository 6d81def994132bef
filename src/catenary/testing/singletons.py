"""The one bridge of a process, between tests."""

from __future__ import annotations

from catenary.factory import forget_websocket_bridge_factory


def reset() -> None:
    """
    Forget the one bridge of this process: the next ``get_websocket_bridge_factory()`` makes another.

    Whoever holds the former one keeps it; stop it first if it was started.
    """
    forget_websocket_bridge_factory()

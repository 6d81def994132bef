from __future__ import annotations

import catenary


def test_every_public_name_is_there_and_explained() -> None:
    """What ``__all__`` names can be imported and has a docstring."""
    for name in catenary.__all__:
        assert getattr(catenary, name).__doc__, name


def test_the_names_that_users_know_are_public() -> None:
    """Those of the users' own documents stay."""
    assert {
        "WebSocketBridgeFactory",
        "UserWebSocketEmitter",
        "UserWebSocketContext",
        "WebSocketEvent",
        "ConnectionStatus",
        "get_websocket_bridge_factory",
        "get_websocket_manager",
        "WebSocketManager",
        "MessageHandlerService",
    } <= set(catenary.__all__)
    assert catenary.__all__ == sorted(catenary.__all__, key=lambda name: (name.islower(), name))

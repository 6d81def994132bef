"""
Catenary: a WebSocket bridge between AI agents and their users.

Every event reaches exactly its user, in one order, none lost, none doubled,
resumed where it broke.
"""

from catenary.auth import Identity
from catenary.context import ConnectionStatus, UserWebSocketContext
from catenary.current import current_run
from catenary.emitter import UserWebSocketEmitter
from catenary.errors import (
    AuthError,
    CatenaryError,
    ConfigError,
    LifecycleError,
    LogFull,
    LogUnavailable,
    PositionLost,
    RunCancelled,
    RunClosed,
    RunFailed,
    UsageError,
)
from catenary.eventlog.receipt import Receipt
from catenary.events import WebSocketEvent
from catenary.factory import (
    WebSocketBridgeFactory,
    get_websocket_bridge_factory,
    get_websocket_manager,
)
from catenary.inbound import MessageHandlerService
from catenary.manager import WebSocketManager
from catenary.position import Position
from catenary.questions import request
from catenary.runs import Run

__all__ = [
    "AuthError",
    "CatenaryError",
    "ConfigError",
    "ConnectionStatus",
    "Identity",
    "LifecycleError",
    "LogFull",
    "LogUnavailable",
    "MessageHandlerService",
    "Position",
    "PositionLost",
    "Receipt",
    "Run",
    "RunCancelled",
    "RunClosed",
    "RunFailed",
    "UsageError",
    "UserWebSocketContext",
    "UserWebSocketEmitter",
    "WebSocketBridgeFactory",
    "WebSocketEvent",
    "WebSocketManager",
    "current_run",
    "get_websocket_bridge_factory",
    "get_websocket_manager",
    "request",
]

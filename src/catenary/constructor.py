"""Checks of what is injected into a service, with errors that name the right argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from catenary.manager import WebSocketManager

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

_ARGUMENTS = ("websocket_manager", "redis_client", "db_session", "logger", "config")
_MEANT = {"websocket": "websocket_manager", "manager": "websocket_manager",
          "ws_manager": "websocket_manager", "redis": "redis_client", "db": "db_session",
          "session": "db_session", "log": "logger", "settings": "config"}  # fmt: skip


def checked_manager(
    manager: object, unknown: Mapping[str, object]
) -> WebSocketManager | Callable[[], WebSocketManager]:
    """
    Return an injected manager, or the getter that will give one.

    Raises:
        TypeError: If it is neither, or another argument is unknown.
    """
    for name in unknown:
        meant = _MEANT.get(name)
        hint = f"; did you mean {meant!r}?" if meant else f"; it takes {', '.join(_ARGUMENTS)}"
        raise TypeError(f"MessageHandlerService() got an unknown argument {name!r}{hint}")
    if manager is None:
        raise TypeError(
            "MessageHandlerService() needs websocket_manager=: a WebSocketManager, or a function "
            "that returns one, such as get_websocket_manager"
        )
    if isinstance(manager, WebSocketManager):
        return manager
    if callable(manager) and not isinstance(manager, type):
        return _Lazy(manager)
    raise TypeError(
        "websocket_manager must be a WebSocketManager or a function that returns one, not "
        f"{type(manager).__name__}"
    )


class _Lazy:
    """A getter that is asked once, and refuses to be asked by itself."""

    def __init__(self, getter: Callable[[], object]) -> None:
        self._getter = getter
        self._is_asking = False

    def __call__(self) -> WebSocketManager:
        if self._is_asking:
            raise TypeError("websocket_manager is circular: getting it asks for itself")
        self._is_asking = True
        try:
            manager = self._getter()
        finally:
            self._is_asking = False
        if not isinstance(manager, WebSocketManager):
            raise TypeError(
                "the function given as websocket_manager must return a WebSocketManager, not "
                f"{type(manager).__name__}"
            )
        return manager


def checked_optional(name: str, value: object, kind: type[T], default: T) -> T:
    """
    Return an optional argument, or its default.

    Raises:
        TypeError: If it is of another type.
    """
    if value is None:
        return default
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
    return value


def checked_config(config: object, kind: type[S]) -> S:
    """
    Return a configuration from an instance or a mapping.

    Raises:
        TypeError: If it is neither, or a key or value is wrong; the text says which.
    """
    if config is None:
        return kind()
    if isinstance(config, kind):
        return config
    if not isinstance(config, Mapping):
        raise TypeError(
            f"config must be a {kind.__name__} or a mapping, not {type(config).__name__}"
        )
    fields = {field.name for field in msgspec.structs.fields(kind)}
    for name in config:
        if name not in fields:
            raise TypeError(f"config has an unknown key {name!r}; it takes {sorted(fields)}")
    try:
        return msgspec.convert(config, kind)
    except msgspec.ValidationError as error:
        raise TypeError(f"config: {error}") from error

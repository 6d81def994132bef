"""From ``--app module:name`` to the bridge that is served."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catenary.errors import ConfigError
from catenary.factory import WebSocketBridgeFactory
from catenary.settings import Settings

_KINDS = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


def bridge_of(settings: Settings, options: Mapping[str, Any]) -> WebSocketBridgeFactory:
    """
    Return the bridge that the settings name; without one, a plain one.

    Raises:
        ConfigError: If it cannot be imported or made, or has another log than was asked for.
    """
    made: dict[str, Any] = {
        "log": settings.log,
        "limits": settings.limits(),
        "run_drain_timeout": settings.run_drain_timeout,
        "data_limit_bytes": settings.data_limit_bytes,
        "monitoring": settings.monitoring(),
    }
    if settings.app is None:
        return WebSocketBridgeFactory(**made)
    target = _imported(settings.app)
    if isinstance(target, WebSocketBridgeFactory):
        return _with_its_own_log(settings, options, target)
    if not callable(target):
        raise ConfigError(
            f"{settings.app} is a {type(target).__name__}; --app names a WebSocketBridgeFactory "
            "or a function that returns one"
        )
    factory = target(**_taken(target, made))
    if not isinstance(factory, WebSocketBridgeFactory):
        raise ConfigError(
            f"{settings.app} returned a {type(factory).__name__}, not a WebSocketBridgeFactory"
        )
    return factory


def _imported(app: str) -> Any:
    module_name, _, name = app.partition(":")
    if not module_name or not name:
        raise ConfigError(f"--app is module:name, such as shop.agents:make_bridge; not {app!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        # As `python -m` does: the application is where one stands.
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigError(
            f"there is no module {module_name!r} here. Start from the directory that holds it, or "
            "install it"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError:
        raise ConfigError(f"the module {module_name!r} has no {name!r}") from None


def _taken(target: Any, made: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(target).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return dict(made)
    names = {parameter.name for parameter in parameters if parameter.kind in _KINDS}
    return {name: value for name, value in made.items() if name in names}


def _with_its_own_log(
    settings: Settings, options: Mapping[str, Any], factory: WebSocketBridgeFactory
) -> WebSocketBridgeFactory:
    if options.get("log") and settings.log != factory.log.url:
        raise ConfigError(
            f"--log is {settings.log}, and the bridge {settings.app} has its own log "
            f"{factory.log.shown_url}. Leave --log out, or name a function that takes log="
        )
    return factory

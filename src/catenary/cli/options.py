"""Settings as options: one declaration serves the environment, the options and the help."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from catenary.settings import Settings, env_name, option_name

SERVER_SETTINGS = tuple(name for name in Settings.model_fields if name != "url")
"""What a server takes."""
REMOTE_SETTINGS = ("url", "api_key", "log", "host", "port")
"""What a command takes that speaks to the running server."""

_PANELS = {
    "host": "The server",
    "log": "The event log",
    "jwt_secret": "Who may connect",
    "data_limit_bytes": "Limits",
}


def takes_settings(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Let a command take settings as options; it gets them as ``options``, a dict.

    Absent ones are None, so that :func:`catenary.settings.load` takes them from
    the environment. It also parses them all, so that an error reads the same
    wherever a value came from.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.name != "options"
        ]
        parameters = [*own, *_parameters(names)]

        @functools.wraps(command)
        def taking(**values: Any) -> Any:
            options = {name: values.pop(name) for name in names}
            return command(**values, options=options)

        taking.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        taking.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return taking

    return decorate


def _parameters(names: Iterable[str]) -> Iterable[inspect.Parameter]:
    panels = _panel_of_each()
    for name in names:
        field = Settings.model_fields[name]
        is_flag = field.annotation is bool
        option = typer.Option(
            f"{option_name(name)}/--no-{name}" if is_flag else option_name(name),
            help=f"{field.description} [dim]{env_name(name)}[/dim]{_default(field.default)}",
            rich_help_panel=panels[name],
            show_default=False,
            metavar=None if is_flag else _metavar(field.annotation),
        )
        kind: Any = bool if is_flag else str
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, option],
        )


def _panel_of_each() -> dict[str, str]:
    panels = {}
    panel = "Options"
    for name in Settings.model_fields:
        panel = _PANELS.get(name, panel)
        panels[name] = panel
    return panels


def _default(value: Any) -> str:
    return "" if value in (None, (), False) else f" [dim]({value})[/dim]"


def _metavar(annotation: Any) -> str:
    return {int: "NUMBER", float: "NUMBER"}.get(annotation, "TEXT")

"""``serve``, ``demo`` and ``token``."""

from __future__ import annotations

import functools
import logging.config
import os
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console

from catenary.auth import sign_token
from catenary.cli.desk import signed_token
from catenary.cli.loading import bridge_of
from catenary.cli.options import SERVER_SETTINGS, takes_settings
from catenary.cli.teaching import command
from catenary.eventlog.opening import open_log
from catenary.observe.logging import log_config
from catenary.serving.asgi import BridgeApp
from catenary.serving.development import TOKEN_SECONDS, development_routes
from catenary.serving.server import listen, run, url_of
from catenary.serving.worker import work
from catenary.serving.workers import Workers
from catenary.settings import (
    Settings,
    check_durability,
    check_workers,
    load,
    revealed,
    secured,
    verifier,
)

commands = typer.Typer()
EXAMPLE_USER = "user_123"


@command(
    commands,
    "catenary serve --dev",
    "CATENARY_JWT_SECRET=$(openssl rand -hex 32) catenary serve --log sqlite:///events.db",
    "catenary serve --app shop.agents:make_bridge --host 0.0.0.0 --port 80",
    "catenary serve --log redis://localhost:6379/0 --workers 4",
)
@takes_settings(*SERVER_SETTINGS)
def serve(options: dict[str, Any]) -> None:
    """
    Serve a bridge: /ws, /sse, /api, /healthz, /readyz and /metrics on one port.

    --app names a WebSocketBridgeFactory, or a function that makes one; the function gets those of
    log=, limits=, run_drain_timeout=, data_limit_bytes= and monitoring= that it takes. Without --app
    a plain bridge is served: publish through /api, or `catenary emit`. --workers serves the port with
    several processes, over a log that they share.
    """
    settings = secured(load(options))
    set_up_logging(settings)
    if settings.workers > 1:
        _serve_with_workers(settings, options)
        return
    app = app_of(settings, options)
    run(
        settings, app, on_started=lambda url: _tell_started(settings, url, app.factory.log.survives)
    )


def app_of(settings: Settings, options: dict[str, Any]) -> BridgeApp:
    """
    Return the application that the settings describe.

    Raises:
        ConfigError: If its bridge cannot be made, or has a log that does not fit.
    """
    factory = bridge_of(settings, options)
    check_durability(settings, factory.log)
    check_workers(settings, factory.log)
    secret, api_key = revealed(settings.jwt_secret), revealed(settings.api_key)
    routes = development_routes(secret=secret, api_key=api_key) if settings.dev else []
    return BridgeApp(
        factory,
        verifier=verifier(settings),
        allowed_origins=settings.allowed_origins,
        cookie_name=settings.cookie_name,
        api_key=api_key,
        metrics_key=revealed(settings.metrics_key),
        open_metrics=settings.metrics_key is None and settings.is_loopback,
        routes=routes,
        wires=settings.wires,
        on_abort=settings.on_abort,
    )


def _serve_with_workers(settings: Settings, options: dict[str, Any]) -> None:
    if settings.app is None:
        # An application may have a log of its own, which only the workers get to know.
        check_workers(settings, open_log(settings.log))
    shared = listen(settings.host, settings.port)
    own: list[list[socket.socket]] = [[] for _ in range(settings.workers)]
    if settings.worker_ports is not None:
        own = [
            [listen(settings.host, settings.worker_ports + number)]
            for number in range(settings.workers)
        ]
    Workers(
        functools.partial(_work, settings, options),
        [[shared, *listeners] for listeners in own],
        on_started=lambda survives: _tell_started(settings, url_of(shared), survives),
    ).run()


def _work(
    settings: Settings, options: dict[str, Any], link: Connection, listeners: list[socket.socket]
) -> None:
    set_up_logging(settings)
    work(lambda: app_of(settings, options), link, listeners)


def set_up_logging(settings: Settings) -> None:
    """Send log records to standard error, as the settings say."""
    level = settings.log_level.upper()
    config = log_config(settings.log_format, level=level)
    if settings.log_level != "debug":
        config["loggers"]["uvicorn.error"]["level"] = "WARNING"
    logging.config.dictConfig(config)


def _tell_started(settings: Settings, url: str, survives: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    websocket = f"ws{url.removeprefix('http')}/ws"
    workers = f" with {settings.workers} workers" if settings.workers > 1 else ""
    console.print(f"Catenary listens on [bold]{url}[/bold] (WebSocket: {websocket}){workers}")
    console.print(f"An acknowledged event survives {survives}.")
    if settings.dev:
        _tell_development(console, settings, url)


def _tell_development(console: Console, settings: Settings, url: str) -> None:
    console.print(
        "[yellow]This is for development, and for this machine only:[/yellow] whoever reaches "
        "this port gets a token for any user."
    )
    secret = revealed(settings.jwt_secret)
    if secret is not None:
        token = sign_token(EXAMPLE_USER, secret=secret, ttl=TOKEN_SECONDS)
        console.print(f"A token for {EXAMPLE_USER}, good for 12 hours:\n{token}")
    console.print(f"Watch that user:  catenary tail {EXAMPLE_USER} --url {url}")


@command(
    commands,
    "catenary demo",
    "catenary demo --port 9000 --log sqlite:////tmp/demo.db",
)
@takes_settings("host", "port", "log_level", "log_format")
def demo(
    options: dict[str, Any],
    log: Annotated[
        str | None,
        typer.Option(help="The event log; a file in the user's state directory if absent."),
    ] = None,
    pace: Annotated[float, typer.Option(help="Seconds between the words of an answer.")] = 0.02,
) -> None:
    """
    Show it: a page where one asks, breaks the connection, and sees it resume.

    A real agent answers from this project's documents, with tools, without a model or a network.
    Stop the server in the middle, also with kill -9, and start it again: the page goes on.
    """
    from catenary.demo.server import demo_app  # noqa: PLC0415 - only the demo has a page

    settings = load({**options, "dev": True, "log": log or _default_log()})
    set_up_logging(settings)
    run(settings, demo_app(settings, pace=pace), on_started=_tell_demo)


def _default_log() -> str:
    """A file where programs keep what they need again."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    directory = Path(state) / "catenary"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return f"sqlite:///{quote(str(directory / 'demo.db'))}"


def _tell_demo(url: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"The demo is at [bold]{url}[/bold]: open it in a browser. Ctrl+C stops it.")


@command(
    commands,
    "CATENARY_JWT_SECRET=… catenary token user_123",
    "catenary token user_123 --ttl 60 --session phone",
)
@takes_settings("jwt_secret", "jwt_audience", "jwt_issuer")
def token(
    options: dict[str, Any],
    user: Annotated[str, typer.Argument(help="Whom it names.")],
    ttl: Annotated[float, typer.Option(help="How many seconds it is good for.")] = 3600,
    session: Annotated[str | None, typer.Option(help="The session that it names.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group; may be repeated.")] = None,
) -> None:
    """
    Print a token for a user, signed with the configured secret. For development.

    In production tokens come from whatever your users sign in with.
    """
    signed = signed_token(
        load(options), user, ttl=ttl, session_id=session, groups=tuple(group or ())
    )
    print(signed)

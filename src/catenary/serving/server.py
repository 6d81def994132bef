"""The server process: uvicorn with a bridge's protocols, and an end in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from catenary.errors import ConfigError
from catenary.factory import WebSocketBridgeFactory
from catenary.serving.asgi import BridgeApp
from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol
from catenary.settings import Settings

logger = logging.getLogger("catenary.server")

BACKLOG = 2048
HANGING_SECONDS = 10
"""How long requests that are not answered may keep a stopped server from ending."""
POLL_SECONDS = 0.1


class BridgeServer(uvicorn.Server):
    """
    A uvicorn server that leaves in order.

    The first SIGTERM or SIGINT drains: the listener stays open and answers
    503, connections get ``closing``, runs are given their time; then uvicorn's
    own shutdown follows. The second one ends the process at once, as a crash
    would. ``on_started`` is called with the server's URL once it listens.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        factory: WebSocketBridgeFactory,
        *,
        on_started: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(config)
        self.factory = factory
        self._on_started = on_started
        self._is_signalled = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self._on_started is not None and self.started:
            self._on_started(url_of(self.servers[0].sockets[0]))

    async def on_tick(self, counter: int) -> bool:
        """End also when the bridge never will be able to serve."""
        return await super().on_tick(counter) or self.factory.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain while the listener is open, then close everything."""
        if self.factory.failure is None:
            await self._drain()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        draining = asyncio.create_task(self.factory.drain(), name="catenary drain")
        while not draining.done():
            # Turning, so that a second signal is seen: its handler cannot wake the loop.
            await asyncio.wait([draining], timeout=POLL_SECONDS)
        if draining.exception() is not None:
            logger.error("the drain failed", exc_info=draining.exception())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: the first asks for an end in order, the second is one."""
        if self._is_signalled:
            # What is in the log stays; the next start closes the runs that this one leaves open.
            os._exit(128 + sig)
        self._is_signalled = self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """
        Handle signals while it serves; an end in order is a success, so none is raised again.

        On any other than the main thread signals belong to whoever owns that.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        former = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


def run(
    settings: Settings,
    app: BridgeApp,
    *,
    on_started: Callable[[str], None] | None = None,
) -> None:
    """
    Serve ``app`` until a signal, and leave in order.

    Raises:
        ConfigError: If the address cannot be listened on, or the bridge cannot be started.
    """
    listener = listen(settings.host, settings.port)
    serve_on([listener], BridgeServer(config_for(app), app.factory, on_started=on_started))


def serve_on(listeners: list[socket.socket], server: BridgeServer) -> None:
    """
    Let a server serve listening sockets until it is told to leave.

    Raises:
        ConfigError: If the bridge cannot be started.
    """
    raise_open_files_limit()
    server.run(sockets=listeners)
    failure = server.factory.failure
    if failure is not None:
        raise ConfigError(f"the bridge cannot start: {failure}") from failure


def config_for(app: BridgeApp) -> uvicorn.Config:
    """Return how uvicorn serves a bridge."""
    return uvicorn.Config(
        app,
        interface="asgi3",
        http=HTTPProtocol,
        ws=WebSocketProtocol,
        lifespan="on",
        # Its own loggers go where the settings say, and its access log would show tickets.
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing depends on where a request comes from, so no proxy need be believed.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=HANGING_SECONDS,
    )


def listen(host: str, port: int) -> socket.socket:
    """
    Return a listening socket.

    Raises:
        ConfigError: If the address is not there, or taken; with what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_any = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_any
        )
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Is another server running "
            "there? Choose another port with --port, any free one with --port 0, or another "
            "address with --host"
        ) from error


def url_of(listener: socket.socket) -> str:
    """Return the URL under which a listening socket is reached from here."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - read, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def raise_open_files_limit() -> int | None:
    """
    Let this process open as many files as it may: each connection is one.

    Returns the limit; None where the system has none to set.
    """
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - there is none on Windows

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:
        # macOS says that there is no limit, and refuses that number.
        logger.debug("the limit of open files stays: %s", error)
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

"""The bridges that are validated: one served in this process, or one that runs elsewhere."""

from __future__ import annotations

import abc
import secrets
import ssl as ssl_module
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from catenary.auth import JwtVerifier, sign_token
from catenary.client import Client
from catenary.context import UserWebSocketContext
from catenary.emitter import UserWebSocketEmitter
from catenary.errors import ConfigError, LogUnavailable, ValidationFailed
from catenary.factory import WebSocketBridgeFactory
from catenary.position import Position
from catenary.serving.server import BridgeServer, config_for, listen
from catenary.validate.rows import Need
from catenary.validate.tls import Certificate

START_SECONDS = 20.0
HTTP_SECONDS = 15.0
PUBLISHERS = 32
"""So many events are published to a bridge elsewhere at once."""


class Sent(Protocol):
    """What an emitted event gives back: a receipt."""

    def result(self, timeout: float | None = None) -> Position:
        """Wait in this thread until the event is in the log, and return its place."""
        ...


class Bridge(abc.ABC):
    """A bridge that is being validated: where it is, who may connect, and how to emit."""

    ssl: ssl_module.SSLContext | None = None
    met: frozenset[Need] = frozenset()
    """The needs of rows that this bridge meets."""

    @property
    @abc.abstractmethod
    def websocket_url(self) -> str:
        """The URL of its ``/ws``."""

    @abc.abstractmethod
    def token(self, user_id: str) -> str:
        """Return a token for a user."""

    @property
    @abc.abstractmethod
    def api_key(self) -> str:
        """The key of the publishing API."""

    @abc.abstractmethod
    def emit(
        self,
        user_id: str,
        type: str,
        data: Any = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
    ) -> Sent:
        """Emit one event of an application's type. Thread-safe; it may block for a round trip."""

    @property
    def http_url(self) -> str:
        """The URL under which its HTTP endpoints are."""
        scheme, netloc, path, _, _ = urlsplit(self.websocket_url)
        http = {"ws": "http", "wss": "https"}[scheme]
        return urlunsplit((http, netloc, path.removesuffix("/ws"), "", ""))

    def http(self, bearer: str | None = None) -> httpx.AsyncClient:
        """Return a client of its HTTP endpoints, with the API key if nothing else is given."""
        return httpx.AsyncClient(
            base_url=self.http_url,
            headers={"authorization": f"Bearer {bearer or self.api_key}"},
            timeout=HTTP_SECONDS,
            verify=self.ssl or True,
            trust_env=False,
        )


class ServedBridge(Bridge):
    """
    A bridge of this process behind a real server, on a thread and a loop of its own.

    The agents run wherever they like in this process; the clients use real
    sockets. It is a context manager, plain or async: entering waits until it is
    ready, leaving drains and stops it. ``options`` are those of
    :meth:`WebSocketBridgeFactory.asgi_app`.
    """

    met = frozenset({Need.OWN_BRIDGE, Need.TLS, Need.NETWORK, Need.ADDRESSES})

    def __init__(
        self,
        factory: WebSocketBridgeFactory,
        *,
        certificate: Certificate | None = None,
        host: str = "127.0.0.1",
        **options: Any,
    ) -> None:
        self.factory = factory
        self.ssl = None if certificate is None else certificate.client_context()
        self._secret = secrets.token_urlsafe(32)
        self._api_key = secrets.token_urlsafe(24)
        options = {
            "verifier": JwtVerifier(secret=self._secret),
            "api_key": self._api_key,
            "open_metrics": True,
            **options,
        }
        self.app = factory.asgi_app(**options)
        config = config_for(self.app)
        config.timeout_graceful_shutdown = 1
        if certificate is not None:
            certificate.serve_with(config)
        self._listener = listen(host, 0)
        self._scheme = "ws" if certificate is None else "wss"
        self._address = f"{host}:{self._listener.getsockname()[1]}"
        self._server = BridgeServer(config, factory, on_started=self._started)
        self._listens = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="catenary-bridge", daemon=True)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        except BaseException as error:
            self._failure = error
        finally:
            self._listens.set()

    def _started(self, _: str) -> None:
        self._listens.set()

    # Life

    def start(self) -> Self:
        """
        Serve, and wait until it listens.

        Raises:
            ConfigError: If it cannot be served.
        """
        self._thread.start()
        if not self._listens.wait(START_SECONDS) or self._failure is not None:
            raise ConfigError(f"the bridge cannot be served: {self._failure}")
        return self

    def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """
        Wait until its log is open.

        Raises:
            LogUnavailable: If it is not within ``timeout`` seconds.
        """
        ticks = threading.Event()
        for _ in range(int(timeout / 0.01)):
            if self.factory.problem() is None:
                return
            if self.factory.failure is not None or not self._thread.is_alive():
                break
            ticks.wait(0.01)
        raise LogUnavailable(f"the bridge is not ready: {self.factory.problem()}")

    def stop(self) -> None:
        """Drain, and stop. Idempotent."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(START_SECONDS)
            if self._thread.is_alive():
                raise ValidationFailed(f"the bridge did not stop within {START_SECONDS:g} s")
        self._listener.close()

    def __enter__(self) -> Self:
        self.start()
        self.wait_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # Where it is

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._address.rpartition(":")[2])

    @property
    def websocket_url(self) -> str:
        """The URL of its ``/ws``."""
        return f"{self._scheme}://{self._address}/ws"

    def token(self, user_id: str, **claims: Any) -> str:
        """Return a token for a user; ``claims`` are those of :func:`catenary.auth.sign_token`."""
        return sign_token(user_id, secret=self._secret, **claims)

    @property
    def api_key(self) -> str:
        """The key of the publishing API."""
        return self._api_key

    def client(self, user_id: str, *, url: str | None = None, **options: Any) -> Client:
        """
        Return a client of a user that is not open yet.

        ``url`` is another way to the bridge, such as one through a proxy;
        ``options`` are those of :class:`catenary.client.Client`.
        """
        return Client(
            url or self.websocket_url, token=lambda: self.token(user_id), ssl=self.ssl, **options
        )

    # Emitting

    def emitter(self, user_id: str, **ids: Any) -> UserWebSocketEmitter:
        """Return an emitter; ``ids`` are those of :class:`UserWebSocketContext`."""
        return self.factory.get_user_emitter(UserWebSocketContext(user_id=user_id, **ids))

    def emit(
        self,
        user_id: str,
        type: str,
        data: Any = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
    ) -> Sent:
        """Emit one event beside the lifecycle of any run."""
        return self.emitter(user_id, thread_id=thread_id).custom(type, data, run_id=run_id)


class _Published:
    """The receipt of an event that was published over HTTP."""

    def __init__(self, position: Position) -> None:
        self._position = position

    def result(self, timeout: float | None = None) -> Position:
        return self._position


class RemoteBridge(Bridge):
    """
    A bridge that runs elsewhere: its events are published over HTTP.

    Args:
        url: Of its ``/ws``.
        token: Brings a token for a user.
        api_key: The key of its publishing API.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Callable[[str], str],
        api_key: str,
        ssl: ssl_module.SSLContext | None = None,
    ) -> None:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
        if scheme not in {"ws", "wss"}:
            raise ConfigError(f"{url!r} is no WebSocket URL; one looks like wss://host/ws")
        if scheme == "ws":
            self.met |= {Need.NETWORK}
            if host == "localhost" or host.startswith("127."):
                self.met |= {Need.ADDRESSES}
        self._url = url
        self._token = token
        self._api_key = api_key
        self.ssl = (ssl or ssl_module.create_default_context()) if scheme == "wss" else None
        self._http = httpx.Client(
            base_url=self.http_url,
            headers={"authorization": f"Bearer {api_key}"},
            timeout=HTTP_SECONDS,
            # What many threads share must not close, as one too many, what one of them just got.
            limits=httpx.Limits(max_connections=PUBLISHERS, max_keepalive_connections=PUBLISHERS),
            verify=self.ssl or True,
            trust_env=False,
        )

    @property
    def websocket_url(self) -> str:
        """The URL of its ``/ws``."""
        return self._url

    def token(self, user_id: str) -> str:
        """Return a token for a user."""
        return self._token(user_id)

    @property
    def api_key(self) -> str:
        """The key of the publishing API."""
        return self._api_key

    def emit(
        self,
        user_id: str,
        type: str,
        data: Any = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
    ) -> Sent:
        """Publish one event, and wait for the answer."""
        event = {"type": type, "data": data or {}, "thread_id": thread_id, "run_id": run_id}
        path = f"/api/users/{quote(user_id, safe='')}/events"
        response = self._http.post(
            path, json={name: value for name, value in event.items() if value is not None}
        )
        if response.status_code != httpx.codes.CREATED:
            raise ValidationFailed(f"POST {path} was answered {response.status_code}")
        return _Published(Position.parse(response.json()["position"]))

    def erase(self, user_id: str) -> None:
        """Leave nothing of a user of this validation behind."""
        self._http.post(f"/api/users/{quote(user_id, safe='')}/erase", json={})

    def close(self) -> None:
        """Close what was opened for publishing."""
        self._http.close()

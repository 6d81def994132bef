"""Clocks, keys, tokens and servers for the tests of who someone is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms
from starlette.requests import HTTPConnection

SECRET = "a-secret-of-more-than-thirty-two-bytes"
NOW = 1_800_000_000.0

PRIVATE_KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
OTHER_KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def pem(private_key: Any) -> bytes:
    public: bytes = private_key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    return public


def jwk(private_key: Any, algorithm: str, **fields: Any) -> dict[str, Any]:
    """The public half as a published key, without ``alg`` and ``use`` unless given."""
    public = json.loads(get_default_algorithms()[algorithm].to_jwk(private_key.public_key()))
    public.pop("key_ops", None)
    return {**public, **fields}


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims for one hour from ``NOW``; None removes one."""
    good = {"sub": "user_123", "iat": int(NOW), "exp": int(NOW) + 3600}
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(
    body: Mapping[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any
) -> str:
    return jwt.encode(dict(body), key, algorithm, headers=header or None)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def raw_token(header: bytes, payload: bytes, secret: str = SECRET) -> str:
    """A token of any bytes, with a good HS256 signature over them."""
    text = f"{b64(header)}.{b64(payload)}"
    return f"{text}.{b64(hmac.digest(secret.encode(), text.encode(), hashlib.sha256))}"


def assert_shows_nothing_of(token: str, error: BaseException, log_text: str = "") -> None:
    """No part of the token that tells anything is in the error, what it hangs on, or the log."""
    shown = "".join(traceback.format_exception(error)) + log_text
    linked: BaseException | None = error
    while linked is not None:
        shown += repr(linked) + repr(vars(linked))
        linked = linked.__cause__ or linked.__context__
    # A header such as {"alg":"HS256"} is the same for everybody.
    for part in [token, *token.split(".")[1:]]:
        assert len(part) < 8 or part not in shown


def connection(
    path: str = "/ws",
    *,
    type: str = "websocket",
    method: str = "GET",
    query: str = "",
    subprotocols: tuple[str, ...] = (),
    headers: tuple[tuple[str, str], ...] = (),
) -> HTTPConnection:
    """A connection as a server describes it; ``Host`` is bridge.example unless given."""
    named = {name for name, _ in headers}
    all_headers = [*headers] if "host" in named else [("host", "bridge.example"), *headers]
    scope: dict[str, Any] = {
        "type": type,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in all_headers],
    }
    scope |= {"subprotocols": list(subprotocols)} if type == "websocket" else {"method": method}
    return HTTPConnection(scope)


class JwksServer:
    """A JWKS address on loopback; the test sets what it answers and when."""

    def __init__(self) -> None:
        self.document: Any = {"keys": []}
        self.status = 200
        self.answer_headers: dict[str, str] = {}
        self.requests: list[str] = []
        self.arrived = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    def publish(self, *keys: Mapping[str, Any]) -> None:
        self.document = {"keys": list(keys)}

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def stop(self) -> None:
        self.gate.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def _handler(self) -> Callable[..., BaseHTTPRequestHandler]:
        address = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address.requests.append(self.path)
                address.arrived.set()
                address.gate.wait(10)
                document = address.document
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(address.status)
                for name, value in address.answer_headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except ConnectionError:  # the client had read enough
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing on stderr."""

        return Handler


@contextmanager
def jwks_server() -> Iterator[JwksServer]:
    server = JwksServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()

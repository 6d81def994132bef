"""
The ASGI side of a WebSocket: what the application receives and sends.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import logging
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected

from catenary.errors import CloseCode, ConnectionClosed, UsageError
from catenary.serving.websocket_frames import BINARY, TEXT, frame
from catenary.serving.websocket_handshake import (
    HandshakeRefused,
    Headers,
    UpgradeRequest,
    refusal,
    response_head,
    subprotocols,
    switching_protocols,
)
from catenary.serving.websocket_keepalive import Keepalive
from catenary.serving.websocket_socket import Addresses
from catenary.transport import Receiver, Transport

if TYPE_CHECKING:
    from catenary.serving.websocket import WebSocketProtocol

_LOG = logging.getLogger("uvicorn.error")

Message = dict[str, Any]

_ABNORMAL = 1006


class _Phase(enum.Enum):
    ASKED = "the handshake is not answered"
    DENYING = "an HTTP response is being sent instead"
    DENIED = "the handshake was denied"
    OPEN = "the application receives and sends"
    TAKEN = "a receiver has taken over"
    ENDED = "the application has closed"


class Conversation:
    """
    One call of the application for one WebSocket.

    It answers the handshake as the application says, and is the connection's
    receiver until another one takes over.
    """

    __slots__ = (
        "_accept",
        "_changed",
        "_config",
        "_denial",
        "_gone",
        "_inbox",
        "_is_connect_told",
        "_keepalive",
        "_name",
        "_phase",
        "_protocol",
        "_waiting",
    )

    def __init__(self, protocol: WebSocketProtocol, config: Config, accept: bytes) -> None:
        self._protocol = protocol
        self._config = config
        self._accept = accept
        self._phase = _Phase.ASKED
        self._name = ""
        self._is_connect_told = False
        self._inbox: deque[str | bytes] = deque()
        self._gone: Message | None = None
        self._waiting = 0
        self._changed = asyncio.Event()
        self._keepalive: Keepalive | None = None
        self._denial: tuple[int, list[tuple[bytes, bytes]]] | None = None

    def scope(self, request: UpgradeRequest, ends: Addresses, state: dict[str, Any]) -> Message:
        """
        Build the ASGI scope.

        Raises:
            HandshakeRefused: If the request's target is not a URL.
        """
        try:
            url = httptools.parse_url(request.target)
            path = url.path.decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError, AttributeError) as exc:
            raise HandshakeRefused(400, "bad_request", "the request's target is no URL") from exc
        root_path = self._config.root_path
        self._name = f"{ends.client[0]}:{ends.client[1]} - " if ends.client else ""
        self._name += f'"WebSocket {path}"'
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": ends.scheme,
            "server": ends.server,
            "client": ends.client,
            "root_path": root_path,
            "path": root_path + (unquote(path) if "%" in path else path),
            "raw_path": root_path.encode("ascii") + url.path,
            "query_string": url.query or b"",
            "headers": request.headers,
            "subprotocols": subprotocols(request.headers),
            "state": state.copy(),
            "extensions": {
                "websocket.http.response": {},
                "catenary.takeover": self.takeover,
                "catenary.allow_messages": self._protocol.allow_messages,
            },
        }

    def start(self, scope: Message, tasks: set[asyncio.Task[None]]) -> None:
        """Call the application in a task of its own, kept in ``tasks`` until it returns."""
        fresh = getattr(self._config, "reset_contextvars", False)
        context = contextvars.Context() if fresh else None
        call = self._run(self._config.loaded_app, scope)
        task = self._protocol.loop.create_task(call, context=context)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def takeover(
        self, receiver: Receiver, *, subprotocol: str | None = None, headers: Headers = ()
    ) -> Transport:
        """Open the connection for ``receiver``; see :class:`WebSocketProtocol`."""
        self._open(receiver, subprotocol, headers)
        self._phase = _Phase.TAKEN
        return self._protocol

    # Receiver: what the connection calls.

    def message_received(self, message: str | bytes) -> None:
        """Keep a message for the application; read no more while it is busy."""
        self._inbox.append(message)
        if not self._waiting:
            self._protocol.pause_reading()
        self._changed.set()

    def writable(self) -> None:
        """Let ``send`` go on."""
        self._changed.set()

    def closed(self, code: int, reason: str) -> None:
        """Tell the application that the peer has gone."""
        self._leave(code, reason)
        if self._keepalive is not None:
            self._keepalive.stop()
            self._keepalive = None

    # What the application calls.

    async def receive(self) -> Message:
        """Return the next ASGI message; after the end, ``websocket.disconnect`` each time."""
        if not self._is_connect_told:
            self._is_connect_told = True
            return {"type": "websocket.connect"}
        if self._phase is _Phase.TAKEN:
            raise UsageError("the connection was taken over; its receiver has the messages")
        while not self._inbox:
            if self._gone is not None:
                return self._gone
            self._protocol.resume_reading()
            self._waiting += 1
            try:
                await self._change()
            finally:
                self._waiting -= 1
        message = self._inbox.popleft()
        kind = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", kind: message}

    async def send(self, message: Message) -> None:
        """
        Do what an ASGI message says.

        Raises:
            ClientDisconnected: If the peer has gone.
            UsageError: If the message is not allowed now.
        """
        while self._protocol.is_paused and not self._protocol.is_closing:
            await self._change()
        kind = message["type"]
        if self._phase is _Phase.TAKEN:
            raise UsageError(f"{kind} after the connection was taken over")
        if self._phase in {_Phase.ENDED, _Phase.DENIED}:
            raise UsageError(f"{kind} after the application closed the WebSocket")
        if self._protocol.is_closing:
            raise ClientDisconnected
        if self._phase is _Phase.ASKED:
            self._answer(kind, message)
        elif self._phase is _Phase.DENYING:
            self._deny(kind, message)
        else:
            self._send(kind, message)

    def _answer(self, kind: str, message: Message) -> None:
        if kind == "websocket.accept":
            self._open(self, message.get("subprotocol"), list(message.get("headers") or ()))
            self._phase = _Phase.OPEN
            self._keep_alive()
        elif kind == "websocket.close":
            self._phase = _Phase.DENIED
            self._leave(_ABNORMAL, "")
            self._refuse(403, "forbidden", "the application refused this WebSocket")
        elif kind == "websocket.http.response.start":
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
            self._denial = (message["status"], headers)
            self._phase = _Phase.DENYING
        else:
            raise UsageError(f"a WebSocket must be accepted or refused first, not {kind}")

    def _deny(self, kind: str, message: Message) -> None:
        if kind != "websocket.http.response.body":
            raise UsageError(
                f"the HTTP response that denies a WebSocket needs its body, not {kind}"
            )
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._denial is not None:
            (status, headers), self._denial = self._denial, None
            if not more and all(name != b"content-length" for name, _ in headers):
                headers.append((b"content-length", str(len(body)).encode()))
            self._log(str(status))
            head = response_head(status, [*self._protocol.default_headers, *headers])
            self._protocol.write_response(head + body)
        else:
            self._protocol.write_response(body)
        if not more:
            self._phase = _Phase.DENIED
            self._leave(_ABNORMAL, "")
            self._protocol.refuse(b"")

    def _send(self, kind: str, message: Message) -> None:
        if kind == "websocket.send":
            data, text = message.get("bytes"), message.get("text")
            if data is not None:
                self._protocol.write(frame(BINARY, bytes(data)))
            elif text is not None:
                self._protocol.write(frame(TEXT, text.encode()))
            else:
                raise UsageError("websocket.send needs bytes or text")
        elif kind == "websocket.close":
            code, reason = message.get("code", 1000), message.get("reason") or ""
            self._protocol.close(code, reason)
            self._phase = _Phase.ENDED
            self._leave(code, reason)
        else:
            raise UsageError(f"{kind} on an open WebSocket")

    # The course of it.

    async def _run(self, app: Any, scope: Message) -> None:
        try:
            await app(scope, self.receive, self.send)
        except (ClientDisconnected, ConnectionClosed):
            self._end(CloseCode.NORMAL)
        except Exception:
            _LOG.exception("Exception in ASGI application")
            self._end(CloseCode.INTERNAL)
        except BaseException:
            self._end(CloseCode.INTERNAL)
            raise
        else:
            if self._phase is _Phase.ASKED and not self._protocol.is_closing:
                _LOG.error("ASGI callable returned without answering the handshake.")
            if self._phase is not _Phase.TAKEN:
                self._end(CloseCode.NORMAL)

    def _end(self, code: CloseCode) -> None:
        """Leave nothing open that the application has not finished."""
        if self._phase is _Phase.ASKED:
            if not self._protocol.is_closing:
                self._refuse(500, "internal", "the server failed to answer")
        elif self._phase is _Phase.DENYING:
            self._protocol.abort()
        else:
            self._protocol.close(code, "")

    def _open(self, receiver: Receiver, subprotocol: str | None, headers: Headers) -> None:
        if self._phase is not _Phase.ASKED:
            raise UsageError("the handshake was answered before")
        if self._protocol.is_closing:
            raise ConnectionClosed(_ABNORMAL, "the peer has gone")
        headers = [*self._protocol.default_headers, *headers]
        self._protocol.open(receiver, switching_protocols(self._accept, subprotocol, headers))
        self._log("[accepted]")

    def _keep_alive(self) -> None:
        interval = self._config.ws_ping_interval
        if interval:
            self._keepalive = Keepalive(
                self._protocol,
                interval,
                self._config.ws_ping_timeout,
                is_reading=lambda: not self._inbox,
            )

    def _refuse(self, status: int, error: str, message: str) -> None:
        self._log(str(status))
        headers = self._protocol.default_headers
        self._protocol.refuse(refusal(status, error, message, headers))

    def _leave(self, code: int, reason: str) -> None:
        if self._gone is None:
            self._gone = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._changed.set()

    def _log(self, outcome: str) -> None:
        # Without the query, which may hold a ticket.
        _LOG.info("%s %s", self._name, outcome)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

"""Applications that speak plain ASGI, and takeovers below frameworks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import Opcode

from catenary.errors import UsageError
from catenary.serving.websocket import WebSocketProtocol
from catenary.serving.websocket_keepalive import Keepalive
from tests.serving.sockets import (
    PATIENCE,
    Peer,
    Recorder,
    closing,
    living,
    masked,
    request,
    serving,
    text,
    until,
)


class QuickProtocol(WebSocketProtocol):
    close_timeout = 0.1


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Return every message."""
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({**message, "type": "websocket.send"})
    except WebSocketDisconnect:
        return


async def test_text_and_bytes_of_every_size_come_back_unchanged() -> None:
    async with serving(echo) as server:
        peer = await Peer.open(server)
        for size in (0, 1, 125, 126, 65535, 65536, 300_000):
            peer.send(masked(Opcode.TEXT, b"x" * size))
            assert await peer.frame() == (Opcode.TEXT, b"x" * size)
            peer.send(masked(Opcode.BINARY, b"\x80" * size))
            assert await peer.frame() == (Opcode.BINARY, b"\x80" * size)


async def test_the_scope_is_that_of_the_asgi_specification() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})

    async with serving(app, root_path="/root") as server:
        headers = [(b"X-Name", b"value"), (b"Sec-WebSocket-Protocol", b"a, b")]
        await Peer.open(server, "/a%20b?q=%20&r", headers=headers)
        (scope,) = scopes
        assert scope["type"] == "websocket"
        assert scope["asgi"]["version"] == "3.0"
        assert scope["http_version"] == "1.1"
        assert scope["scheme"] == "ws"
        assert scope["server"] == ("127.0.0.1", server.port)
        assert scope["client"][0] == "127.0.0.1"
        assert scope["root_path"] == "/root"
        assert scope["path"] == "/root/a b"
        assert scope["raw_path"] == b"/root/a%20b"
        assert scope["query_string"] == b"q=%20&r"
        assert (b"x-name", b"value") in scope["headers"]
        assert scope["subprotocols"] == ["a", "b"]
        assert scope["state"] == {}
        assert set(scope["extensions"]) == {
            "websocket.http.response", "catenary.takeover", "catenary.allow_messages",
        }  # fmt: skip


async def test_the_lifespans_state_is_in_the_scope_as_a_copy() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["name"] = "value"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await receive()
        assert scope["state"] == {"name": "value"}
        scope["state"]["name"] = "changed"
        await send({"type": "websocket.accept"})

    async with serving(app, lifespan="on") as server:
        await Peer.open(server)
        await Peer.open(server)


async def test_accept_sends_its_subprotocol_and_headers() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept("b", headers=[(b"Set-Cookie", b"a=1")])

    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request(headers=[(b"Sec-WebSocket-Protocol", b"a, b")]))
        response = await peer.response()
        assert response.headers[b"sec-websocket-protocol"] == b"b"
        assert response.headers[b"set-cookie"] == b"a=1"


# Refusals.


async def test_a_close_before_the_accept_is_403() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.close()
        assert (await receive())["type"] in {"websocket.connect", "websocket.disconnect"}
        assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request())
        assert (await peer.response()).status == 403
        assert await peer.rest() == b""
        await server.until_idle()


async def test_a_denial_response_has_its_status_headers_and_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.send_denial_response(
            JSONResponse({"error": "busy"}, 503, headers={"Retry-After": "3"})
        )

    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request())
        response = await peer.response()
        assert response.status == 503
        assert response.headers[b"retry-after"] == b"3"
        assert response.headers[b"connection"] == b"close"
        assert response.body == b'{"error":"busy"}'
        assert await peer.rest() == b""
        await server.until_idle()


async def test_a_denial_response_may_be_streamed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 10_000

        socket = WebSocket(scope, receive, send)
        await socket.send_denial_response(StreamingResponse(pieces(), 401))

    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request())
        response = await peer.response()
        assert response.status == 401
        assert b"content-length" not in response.headers
        assert await peer.rest() == b"x" * 1_000_000


async def test_a_denial_that_stops_in_the_middle_is_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        body = {"type": "websocket.http.response.body", "body": b"half", "more_body": True}
        await send(body)

    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request())
        await peer.rest()
        await server.until_idle()


async def test_an_application_that_fails_before_answering_is_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("on purpose")

    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request())
        response = await peer.response()
        assert response.status == 500
        assert b"purpose" not in response.body
    assert "on purpose" in caplog.text


async def test_an_application_that_returns_without_answering_is_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request())
        assert (await peer.response()).status == 500
    assert "without answering" in caplog.text


# The closing.


async def test_the_applications_close_is_sent_and_ends_receive() -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.close(4001, "expired")
        received.append(await receive())
        with pytest.raises(UsageError):
            await send({"type": "websocket.send", "text": "late"})

    async with serving(app) as server:
        peer = await Peer.open(server)
        assert await peer.close_frame() == (4001, "expired")
        peer.send(closing(4001))
        assert await peer.rest() == b""
        await server.until_idle()
    assert received == [{"type": "websocket.disconnect", "code": 4001, "reason": "expired"}]


@pytest.mark.parametrize(
    ("last", "code", "reason"), [(closing(1001, "bye"), 1001, "bye"), (closing(), 1005, "")]
)
async def test_the_peers_close_is_a_disconnect_each_time_receive_is_called(
    last: bytes, code: int, reason: str
) -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        received.extend([await receive(), await receive(), await receive()])
        with pytest.raises(OSError):
            await send({"type": "websocket.send", "text": "late"})

    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(text("last") + last)
        await peer.frame()
        await server.until_idle()
    disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
    assert received == [{"type": "websocket.receive", "text": "last"}, disconnect, disconnect]


async def test_a_lost_connection_is_a_disconnect_with_1006() -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        received.append(await receive())

    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.abort()
        await server.until_idle()
    assert received == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_an_application_that_fails_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.receive_text()
        raise ValueError("on purpose")

    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(text("x"))
        assert (await peer.close_frame())[0] == 1011
    assert "on purpose" in caplog.text


async def test_an_application_that_returns_closes_with_1000() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await WebSocket(scope, receive, send).accept()

    async with serving(app) as server:
        peer = await Peer.open(server)
        assert await peer.close_frame() == (1000, "")


async def test_an_application_that_is_cancelled_closes_with_1011() -> None:
    async with serving(echo, ws=QuickProtocol) as server:
        peer = await Peer.open(server)
        for task in server.state.tasks:
            task.cancel()
        assert (await peer.close_frame())[0] == 1011
        await server.until_idle()


async def test_the_servers_shutdown_is_a_disconnect_with_1012() -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        received.append(await receive())

    async with serving(app) as server:
        peer = await Peer.open(server)
        stopping = asyncio.create_task(server.shut_down())
        assert (await peer.close_frame())[0] == 1012
        peer.send(closing(1012))
        async with asyncio.timeout(PATIENCE):
            await stopping
    assert received[0]["code"] == 1012


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send", "text": "x"},
        {"type": "websocket.http.response.body", "body": b""},
        {"type": "nonsense"},
    ],
)
async def test_a_message_before_its_time_is_an_error(message: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(UsageError):
            await send(message)
        await send({"type": "websocket.accept"})
        with pytest.raises(UsageError):
            await send({"type": "websocket.accept"})
        with pytest.raises(UsageError):
            await send({"type": "websocket.send"})
        await send({"type": "websocket.send", "text": "fine"})

    async with serving(app) as server:
        peer = await Peer.open(server)
        assert await peer.message() == "fine"


# Flow.


async def test_an_application_that_does_not_receive_stops_the_peer_and_loses_nothing() -> None:
    go_on = asyncio.Event()
    sizes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await go_on.wait()
        while len(sizes) < 100:
            message = await socket.receive_bytes()
            sizes.append(len(message))

    async with serving(app) as server:
        peer = await Peer.open(server)
        for size in range(100):
            peer.send(masked(Opcode.BINARY, b"x" * (200_000 + size)))
        await asyncio.sleep(0.1)
        assert peer.writer.transport.get_write_buffer_size() > 1_000_000
        go_on.set()
        assert (await peer.close_frame())[0] == 1000
    assert sizes == [200_000 + size for size in range(100)]


async def test_send_waits_for_a_peer_that_does_not_read() -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        for number in range(1_000):
            await socket.send_text(f"{number:04d}" + "x" * 10_000)
            sent.append(number)

    async with serving(app) as server:
        peer = await Peer.open(server, receive_buffer=4096)
        count = -1
        while count != len(sent):
            count = len(sent)
            await asyncio.sleep(0.05)
        assert 0 < count < 100
        for number in range(1_000):
            assert (await peer.message())[:4] == f"{number:04d}"


async def send_for_ever(socket: WebSocket) -> None:
    while True:
        await socket.send_bytes(b"x" * 10_000)


async def test_send_that_waits_ends_when_the_peer_leaves() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        with pytest.raises(WebSocketDisconnect):
            await send_for_ever(socket)

    async with serving(app) as server:
        peer = await Peer.open(server, receive_buffer=4096)
        await asyncio.sleep(0.05)
        peer.abort()
        await server.until_idle()


async def test_a_silent_peer_is_pinged_and_then_closed_with_1011() -> None:
    options = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.1, "ws": QuickProtocol}
    async with serving(echo, **options) as server:
        peer = await Peer.open(server)
        for _ in range(3):
            assert await peer.frame() == (Opcode.PING, b"")
            peer.send(masked(Opcode.PONG, b""))
        assert await peer.frame() == (Opcode.PING, b"")
        assert await peer.close_frame() == (1011, "keepalive ping timeout")
        await server.until_idle()


async def test_a_busy_application_is_not_taken_for_a_silent_peer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await asyncio.sleep(0.4)
        for _ in range(2):
            await socket.send_text(await socket.receive_text())

    async with serving(app, ws_ping_interval=0.05, ws_ping_timeout=0.05) as server:
        peer = await Peer.open(server)
        peer.send(text("one") + text("two"))
        while (await peer.frame())[0] is Opcode.PING:
            peer.send(masked(Opcode.PONG, b""))
        assert await peer.message() == "two"


async def test_the_pings_end_with_the_connection() -> None:
    async with serving(echo, ws_ping_interval=1000) as server:
        gc.collect()
        gc.disable()
        try:
            before = living(Keepalive, WebSocketProtocol)
            peer = await Peer.open(server)
            assert living(Keepalive, WebSocketProtocol) == before + 2
            peer.abort()
            await server.until_idle()
            await until(lambda: living(Keepalive, WebSocketProtocol) == before)
        finally:
            gc.enable()


# Frameworks.


TORN_DOWN: list[str] = []


async def user(connection: HTTPConnection) -> AsyncIterator[str]:
    """Name the user, as a dependency that is torn down after the endpoint."""
    yield connection.query_params["user"]
    TORN_DOWN.append("user")


async def test_a_takeover_passes_through_fastapis_routing_dependencies_and_middleware() -> None:
    TORN_DOWN.clear()
    recorder = Recorder()
    router = APIRouter(prefix="/bridge")

    @router.websocket("/ws/{room}")
    async def endpoint(socket: WebSocket, room: str, name: Annotated[str, Depends(user)]) -> None:
        takeover = socket.scope["extensions"]["catenary.takeover"]
        recorder.transport = takeover(recorder, subprotocol="catenary.v1")
        recorder.messages.append(f"{room} {name}")

    app = FastAPI(
        middleware=[
            Middleware(CORSMiddleware, allow_origins=["*"]),
            Middleware(GZipMiddleware),
        ]
    )
    app.include_router(router)
    async with serving(app) as server:
        peer = await Peer.open(
            server,
            "/bridge/ws/lounge?user=user_123",
            headers=[(b"Sec-WebSocket-Protocol", b"catenary.v1")],
        )
        await until(lambda: TORN_DOWN and not server.state.tasks)
        peer.send(text("hello"))
        await until(lambda: recorder.messages == ["lounge user_123", "hello"])
        peer.send(closing(1000))
        await until(lambda: recorder.ends == [(1000, "")])


async def test_a_takeover_passes_through_mounted_starlette_applications() -> None:
    recorder = Recorder()

    async def endpoint(socket: WebSocket) -> None:
        recorder.transport = socket.scope["extensions"]["catenary.takeover"](recorder)

    inner = Starlette(routes=[WebSocketRoute("/ws", endpoint)])
    async with serving(Starlette(routes=[Mount("/inner", inner)])) as server:
        peer = await Peer.open(server, "/inner/ws")
        peer.send(text("hello"))
        await until(lambda: recorder.messages == ["hello"])


async def test_an_unknown_path_of_a_framework_is_refused() -> None:
    async with serving(FastAPI()) as server:
        peer = await Peer.connect(server)
        peer.send(request("/nowhere"))
        assert (await peer.response()).status in {403, 404}


async def test_receive_and_send_after_a_takeover_are_errors() -> None:
    raised: list[type] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["extensions"]["catenary.takeover"](Recorder())
        for call in (receive(), send({"type": "websocket.send", "text": "x"})):
            with pytest.raises(UsageError) as caught:
                await call
            raised.append(caught.type)

    async with serving(app) as server:
        await Peer.open(server)
        await until(lambda: raised == [UsageError, UsageError])

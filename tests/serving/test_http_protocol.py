"""Deadlines and limits before a request is complete, and what follows an upgrade."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol
from tests.serving.sockets import (
    PATIENCE,
    Peer,
    TakeoverApp,
    living,
    open_files,
    request,
    serving,
    text,
    until,
)

GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"


class QuickProtocol(HTTPProtocol):
    header_timeout = 0.15


class SmallProtocol(HTTPProtocol):
    max_header_bytes = 1000
    max_headers = 10


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with the size of its body."""
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message["more_body"]:
            break
    body = f"{scope['path']} {size}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# Deadlines.


async def test_a_connection_that_sends_nothing_is_closed_without_a_word() -> None:
    async with serving(hello, http=QuickProtocol) as server:
        peer = await Peer.connect(server)
        started = asyncio.get_running_loop().time()
        assert await peer.rest() == b""
        assert 0.1 < asyncio.get_running_loop().time() - started < PATIENCE
        await server.until_idle()


@pytest.mark.parametrize("size", [1, 10, len(GET) - 1])
async def test_a_request_that_does_not_arrive_in_time_is_answered_with_408(size: int) -> None:
    async with serving(hello, http=QuickProtocol) as server:
        peer = await Peer.connect(server)
        peer.send(GET[:size])
        response = await peer.response()
        assert response.status == 408
        assert response.headers[b"connection"] == b"close"
        assert await peer.rest() == b""
        await server.until_idle()


async def test_bytes_that_trickle_in_do_not_move_the_deadline() -> None:
    async with serving(hello, http=QuickProtocol) as server:
        peer = await Peer.connect(server)

        async def trickle() -> None:
            for byte in b"GET /" + b"a" * 1000:
                peer.send(bytes([byte]))
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert (await peer.response()).status == 408
        trickling.cancel()


async def test_a_later_request_on_the_connection_has_the_same_deadline() -> None:
    async with serving(hello, http=QuickProtocol) as server:
        peer = await Peer.connect(server)
        peer.send(GET)
        assert (await peer.response()).body == b"/a 0"
        peer.send(GET[:20])
        assert (await peer.response()).status == 408
        assert await peer.rest() == b""


async def test_the_deadline_is_over_once_the_headers_are_complete() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.4)
        await hello(scope, receive, send)

    async with serving(slow, http=QuickProtocol) as server:
        peer = await Peer.connect(server)
        peer.send(b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
        await asyncio.sleep(0.25)
        peer.send(b"cd")
        assert (await peer.response()).body == b"/a 4"


async def test_an_idle_connection_between_requests_has_uvicorns_time_and_not_the_deadline() -> None:
    async with serving(hello, http=QuickProtocol, timeout_keep_alive=1) as server:
        peer = await Peer.connect(server)
        peer.send(GET)
        assert (await peer.response()).status == 200
        await asyncio.sleep(0.3)
        peer.send(GET)
        assert (await peer.response()).status == 200
        started = asyncio.get_running_loop().time()
        assert await peer.rest() == b""
        assert asyncio.get_running_loop().time() - started > 0.8


async def test_a_request_that_takes_longer_than_connections_may_idle_is_answered() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await asyncio.sleep(0.3)
        await hello(scope, receive, send)

    async with serving(slow, timeout_keep_alive=0.1) as server:
        peer = await Peer.connect(server)
        peer.send(GET)
        assert (await peer.response()).status == 200
        peer.send(GET.replace(b"/a", b"/slow"))
        assert (await peer.response()).body == b"/slow 0"


async def test_an_open_websocket_outlives_the_deadline() -> None:
    app = TakeoverApp()
    async with serving(app, http=QuickProtocol) as server:
        peer = await Peer.open(server)
        await asyncio.sleep(0.3)
        peer.send(text("still here"))
        await until(lambda: app.only.messages == ["still here"])


# Limits.


async def test_headers_over_the_limit_in_one_packet_are_answered_with_431() -> None:
    async with serving(hello) as server:
        peer = await Peer.connect(server)
        peer.send(b"GET /a HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n")
        assert (await peer.response()).status == 431
        await peer.rest()
        peer.close()
        await server.until_idle()


@pytest.mark.parametrize(
    "piece", [b"y" * 50, b"x: y\r\n" * 8], ids=["one endless value", "endless headers"]
)
async def test_headers_without_end_are_answered_with_431_at_the_limit(piece: bytes) -> None:
    async with serving(hello, http=SmallProtocol) as server:
        peer = await Peer.connect(server)
        peer.send(b"GET /a HTTP/1.1\r\nx: ")
        for _ in range(25):
            peer.send(piece)
            await asyncio.sleep(0)
        assert (await peer.response()).status == 431
        await peer.rest()


async def test_too_many_headers_are_answered_with_431() -> None:
    async with serving(hello, http=SmallProtocol) as server:
        peer = await Peer.connect(server)
        peer.send(b"GET /a HTTP/1.1\r\n" + b"x: y\r\n" * 11 + b"\r\n")
        assert (await peer.response()).status == 431


async def test_a_target_over_the_limit_is_answered_with_431() -> None:
    async with serving(hello, http=SmallProtocol) as server:
        peer = await Peer.connect(server)
        peer.send(b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\n\r\n")
        assert (await peer.response()).status == 431


async def test_a_websocket_request_over_the_limit_is_answered_with_431() -> None:
    app = TakeoverApp()
    async with serving(app, http=SmallProtocol) as server:
        peer = await Peer.connect(server)
        peer.send(request(headers=[(b"X-Long", b"y" * 1000)]))
        assert (await peer.response()).status == 431
        assert not app.recorders


async def test_headers_at_the_limit_and_long_bodies_pass() -> None:
    async with serving(hello, http=SmallProtocol) as server:
        peer = await Peer.connect(server)
        head = b"POST /a HTTP/1.1\r\nContent-Length: 100000\r\n" + b"x: y\r\n" * 9 + b"\r\n"
        for _ in range(3):
            peer.send(head + b"z" * 100_000)
            assert (await peer.response()).body == b"/a 100000"


async def test_pipelined_requests_count_each_for_themselves() -> None:
    async with serving(hello, http=SmallProtocol) as server:
        peer = await Peer.connect(server)
        peer.send(GET * 100 + GET[:5])
        for _ in range(100):
            assert (await peer.response()).status == 200
        peer.send(GET[5:])
        assert (await peer.response()).status == 200


async def test_what_is_not_http_is_answered_with_400() -> None:
    async with serving(hello) as server:
        peer = await Peer.connect(server)
        peer.send(b"\x16\x03\x01 hello\r\n\r\n")
        response = await peer.response()
        assert response.status == 400
        assert b'"error"' in response.body
        await peer.rest()
        peer.close()
        await server.until_idle()


async def test_a_refused_peer_that_stays_is_cut() -> None:
    async with serving(hello) as server:
        peer = await Peer.connect(server)
        peer.send(b"nonsense\r\n\r\n" + GET)
        assert (await peer.response()).status == 400
        peer.send(GET)
        await server.until_idle()
        assert await peer.rest() == b""


# Upgrades.


async def test_another_upgrade_than_websocket_is_an_ordinary_request() -> None:
    async with serving(hello) as server:
        peer = await Peer.connect(server)
        peer.send(b"GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert (await peer.response()).body == b"/a 0"


async def test_websockets_can_be_switched_off() -> None:
    async with serving(hello, ws="none") as server:
        peer = await Peer.connect(server)
        peer.send(request("/a"))
        assert (await peer.response()).body == b"/a 0"


async def test_another_websocket_class_gets_the_connection_as_from_uvicorn() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "catenary.takeover" not in scope["extensions"]
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await receive()

    async with serving(app, ws=WebSocketsSansIOProtocol) as server:
        peer = await Peer.open(server)
        assert await peer.message() == "hello"
        peer.close()
        await server.until_idle()


async def test_an_upgrade_behind_an_unfinished_response_does_not_disturb_it() -> None:
    finish = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await finish.wait()
        await hello(scope, receive, send)

    async with serving(slow) as server:
        peer = await Peer.connect(server)
        peer.send(GET + request())
        await until(lambda: server.state.tasks)
        finish.set()
        assert (await peer.response()).body == b"/a 0"
        assert await peer.rest() == b""
        await server.until_idle()


async def test_an_upgrade_after_a_finished_response_opens_a_websocket() -> None:
    app = TakeoverApp()

    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (hello if scope["type"] == "http" else app)(scope, receive, send)

    async with serving(both) as server:
        peer = await Peer.connect(server)
        peer.send(GET)
        assert (await peer.response()).status == 200
        peer.send(request() + text("hello"))
        assert (await peer.response()).status == 101
        await until(lambda: app.only.messages == ["hello"])


async def test_no_timer_file_or_object_is_left_when_connections_end() -> None:
    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (hello if scope["type"] == "http" else TakeoverApp())(scope, receive, send)

    async with serving(both) as server:
        gc.collect()
        gc.disable()
        try:
            files, objects = open_files(), living(WebSocketProtocol, HTTPProtocol)
            for data in (b"", GET[:9], request(), b"nonsense\r\n\r\n"):
                peer = await Peer.connect(server)
                peer.send(data)
                await asyncio.sleep(0.01)
                peer.close()
            await server.until_idle()
            await until(lambda: open_files() == files)
            await until(lambda: living(WebSocketProtocol, HTTPProtocol) == objects)
            assert not [
                timer
                for timer in gc.get_objects()
                if type(timer) is asyncio.TimerHandle
                and not timer.cancelled()
                and "HTTPProtocol" in repr(timer)
            ]
        finally:
            gc.enable()

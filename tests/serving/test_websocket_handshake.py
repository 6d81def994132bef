"""The opening of connections that are taken over by a receiver."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.config
import weakref
from typing import Any

import pytest

from catenary.errors import ConnectionClosed, UsageError
from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol
from catenary.serving.websocket_asgi import Conversation
from catenary.serving.websocket_inbound import Inbound
from tests.serving.sockets import (
    ACCEPT,
    PATIENCE,
    Peer,
    Recorder,
    TakeoverApp,
    living,
    request,
    serving,
    text,
    until,
)

KINDS = (WebSocketProtocol, HTTPProtocol, Conversation, Inbound)


async def test_a_handshake_is_answered_with_the_accept_key_of_the_rfc() -> None:
    async with serving(TakeoverApp()) as server:
        peer = await Peer.connect(server)
        peer.send(request())
        response = await peer.response()
        assert response.status == 101
        assert response.headers[b"sec-websocket-accept"] == ACCEPT
        assert b"sec-websocket-extensions" not in response.headers
        assert b"date" in response.headers


async def test_firefox_is_served_though_its_connection_header_has_two_tokens() -> None:
    async with serving(TakeoverApp()) as server:
        headers = [(b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", b"WebSocket")]
        await Peer.open(server, headers=headers)


async def test_the_tokens_may_be_spread_over_two_connection_headers() -> None:
    async with serving(TakeoverApp()) as server:
        headers = [(b"Connection", b"Upgrade"), (b"Connection", b"keep-alive")]
        await Peer.open(server, headers=headers)


BAD_HANDSHAKES = {
    "no version": (request(drop_headers=[b"Sec-WebSocket-Version"]), 426),
    "old version": (request(headers=[(b"Sec-WebSocket-Version", b"8")]), 426),
    "no key": (request(drop_headers=[b"Sec-WebSocket-Key"]), 400),
    "short key": (request(headers=[(b"Sec-WebSocket-Key", b"c2hvcnQ=")]), 400),
    "key not base64": (request(headers=[(b"Sec-WebSocket-Key", b"!" * 24)]), 400),
    "key unpadded": (request(headers=[(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQAA")]), 400),
    "two keys": (
        request(headers=[(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==")] * 2),
        400,
    ),
    "post": (request(method=b"POST"), 405),
    "http 1.0": (request(version=b"HTTP/1.0"), 400),
    "target no url": (request("http://localhost"), 400),
}


@pytest.mark.parametrize(("handshake", "status"), BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
async def test_a_bad_handshake_is_refused_with_its_status_and_closed(
    handshake: bytes, status: int
) -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(handshake)
        response = await peer.response()
        assert response.status == status
        assert b'"error"' in response.body
        if status == 426:
            assert response.headers[b"sec-websocket-version"] == b"13"
        assert await peer.rest() == b""
        assert not app.recorders
        await server.until_idle()


async def test_the_takeover_answers_with_its_subprotocol_and_headers() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["subprotocols"] == ["catenary.v1", "other"]
        takeover = scope["extensions"]["catenary.takeover"]
        takeover(Recorder(), subprotocol="catenary.v1", headers=[(b"x-node", b"n1")])

    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request(headers=[(b"Sec-WebSocket-Protocol", b"catenary.v1, other")]))
        response = await peer.response()
        assert response.headers[b"sec-websocket-protocol"] == b"catenary.v1"
        assert response.headers[b"x-node"] == b"n1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"subprotocol": "a\r\nx: y"},
        {"headers": [(b"x", b"a\r\ny: z")]},
        {"headers": [(b"x y", b"a")]},
    ],
)
async def test_an_answer_that_http_does_not_allow_is_refused_to_the_application(
    wrong: dict[str, Any],
) -> None:
    raised: list[UsageError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        takeover = scope["extensions"]["catenary.takeover"]
        with pytest.raises(UsageError) as caught:
            takeover(Recorder(), **wrong)
        raised.append(caught.value)
        takeover(Recorder())

    async with serving(app) as server:
        await Peer.open(server)
        assert raised


async def test_a_second_takeover_is_an_error_and_harms_nothing() -> None:
    app = TakeoverApp()
    refused: list[UsageError] = []

    async def twice(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        with pytest.raises(UsageError) as caught:
            scope["extensions"]["catenary.takeover"](Recorder())
        refused.append(caught.value)

    async with serving(twice) as server:
        peer = await Peer.open(server)
        peer.send(text("hello"))
        await until(lambda: app.only.messages == ["hello"])
        assert refused


async def test_a_takeover_after_the_peer_has_gone_raises_connection_closed() -> None:
    gone = asyncio.Event()
    raised: list[ConnectionClosed] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        assert (await receive())["type"] == "websocket.disconnect"
        with pytest.raises(ConnectionClosed) as caught:
            scope["extensions"]["catenary.takeover"](Recorder())
        raised.append(caught.value)
        gone.set()

    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request())
        await until(lambda: server.state.tasks)
        peer.close()
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
        assert raised[0].code == 1006


async def test_an_endpoint_that_fails_after_the_takeover_closes_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = TakeoverApp()

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        raise ValueError("on purpose")

    async with serving(failing) as server:
        peer = await Peer.open(server)
        assert await peer.close_frame() == (1011, "")
    assert "on purpose" in caplog.text


async def test_the_query_is_in_the_scope_and_not_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[bytes] = []
    app = TakeoverApp()

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["query_string"])
        await app(scope, receive, send)

    # What a server's configuration does to loggers that exist already.
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "loggers": {"catenary": {"level": "DEBUG"}},
        }
    )
    caplog.set_level(logging.DEBUG)
    async with serving(noting) as server:
        peer = await Peer.open(server, "/ws?ticket=abc123")
        peer.send(text("secret-word"))
        await until(lambda: app.only.messages)
    logging.getLogger("catenary").setLevel(logging.NOTSET)
    assert seen == [b"ticket=abc123"]
    assert '"WebSocket /ws" [accepted]' in caplog.text
    assert "abc123" not in caplog.text
    assert "secret-word" not in caplog.text


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_it_works_behind_uvicorns_own_http_protocols(http: str) -> None:
    app = TakeoverApp()
    async with serving(app, http=http) as server:
        peer = await Peer.open(server, "/a%20b?x=1")
        peer.send(text("hello"))
        await until(lambda: app.only.messages == ["hello"])
        bad = await Peer.connect(server)
        bad.send(request(drop_headers=[b"Sec-WebSocket-Version"]))
        assert (await bad.response()).status == 426


async def test_nothing_of_the_handshake_is_kept_after_the_endpoint_returned() -> None:
    class Marker:
        pass

    markers: list[weakref.ref[Marker]] = []
    app = TakeoverApp()

    async def marking(scope: Any, receive: Any, send: Any) -> None:
        scope["marker"] = marker = Marker()
        markers.append(weakref.ref(marker))
        await app(scope, receive, send)

    gc.collect()
    gc.disable()
    try:
        before = living(*KINDS)
        async with serving(marking) as server:
            await Peer.open(server)
            await until(lambda: not server.state.tasks)
            await until(lambda: markers[0]() is None)
            # The protocol itself, which is the receiver's transport now.
            assert living(*KINDS) == before + 1
    finally:
        gc.enable()

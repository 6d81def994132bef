"""Connections taken over by a receiver: opening, frames, flow, closing."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import weakref
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Opcode

from catenary.errors import ConnectionClosed, UsageError
from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol
from catenary.serving.websocket_asgi import Conversation
from catenary.serving.websocket_frames import TEXT, frame
from catenary.serving.websocket_inbound import Inbound
from tests.serving.sockets import (
    ACCEPT,
    PATIENCE,
    Peer,
    Recorder,
    TakeoverApp,
    closing,
    living,
    masked,
    open_files,
    request,
    serving,
    text,
    until,
)

KINDS = (WebSocketProtocol, HTTPProtocol, Conversation, Inbound)


class QuickProtocol(WebSocketProtocol):
    close_timeout = 0.1


# The opening.


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

    caplog.set_level(logging.DEBUG)
    async with serving(noting) as server:
        peer = await Peer.open(server, "/ws?ticket=abc123")
        peer.send(text("secret-word"))
        await until(lambda: app.only.messages)
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


# Frames.


async def test_messages_arrive_whole_and_in_order_however_they_are_cut() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        whole = (
            text("one")
            + masked(Opcode.TEXT, "zwei ä".encode()[:6], fin=False)
            + masked(Opcode.PING, b"between")
            + masked(Opcode.CONT, b"", fin=False)
            + masked(Opcode.CONT, "zwei ä".encode()[6:])
            + masked(Opcode.BINARY, b"\x00" * 70_000)
            + text("")
        )
        for start in range(200):
            peer.send(whole[start : start + 1])
            await asyncio.sleep(0)
        peer.send(whole[200:])
        await until(lambda: len(app.only.messages) == 4)
        assert app.only.messages == ["one", "zwei ä", b"\x00" * 70_000, ""]
        assert await peer.frame() == (Opcode.PONG, b"between")


async def test_frames_sent_with_the_request_reach_the_receiver_after_the_handshake() -> None:
    class Ordered(Recorder):
        def message_received(self, message: str | bytes) -> None:
            assert self.transport is not None
            super().message_received(message)

    app = TakeoverApp(Ordered)
    async with serving(app) as server:
        peer = await Peer.connect(server)
        peer.send(request() + text("first") + text("second")[:3])
        assert (await peer.response()).status == 101
        peer.send(text("second")[3:7])
        await until(lambda: app.recorders and app.only.messages)
        assert app.only.messages == ["first"]


async def test_frames_sent_before_the_answer_wait_for_it_in_a_bounded_buffer() -> None:
    answer = asyncio.Event()
    app = TakeoverApp()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await answer.wait()
        await app(scope, receive, send)

    async with serving(slow) as server:
        peer = await Peer.connect(server)
        peer.send(request() + text("0"))
        await until(lambda: server.state.tasks)
        frames = [text(f"{number} " + "x" * 60_000) for number in range(1, 100)]
        for data in frames:
            peer.send(data)
        # Six megabytes do not fit into the kernel's buffers alone once the server stops reading.
        (protocol,) = (found for found in server.state.connections)
        await until(lambda: len(getattr(protocol, "_early") or b"") > 64 * 1024)  # noqa: B009
        held = len(getattr(protocol, "_early"))  # noqa: B009
        await asyncio.sleep(0.05)
        assert len(getattr(protocol, "_early")) == held <= 64 * 1024 + 256 * 1024  # noqa: B009
        answer.set()
        await until(lambda: app.recorders and len(app.only.messages) == 100)
        assert [str(message).split()[0] for message in app.only.messages] == [
            str(number) for number in range(100)
        ]


async def test_pings_are_answered_and_ours_are_outstanding_one_at_a_time() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        recorder = await app.first()
        transport = recorder.socket
        transport.ping()
        transport.ping()
        transport.write(frame(TEXT, b"after"))
        assert await peer.frame() == (Opcode.PING, b"")
        assert await peer.message() == "after"
        peer.send(masked(Opcode.PONG, b"") + text("ponged"))
        await until(lambda: recorder.messages)
        transport.ping()
        assert await peer.frame() == (Opcode.PING, b"")


VIOLATIONS = {
    "invalid utf-8": (masked(Opcode.TEXT, b"\xff\xfe"), 1007),
    "invalid utf-8 over fragments": (
        masked(Opcode.TEXT, b"\xc3", fin=False) + masked(Opcode.CONT, b"("),
        1007,
    ),
    "too big": (masked(Opcode.BINARY, b"x" * (1024 * 1024 + 1)), 1009),
    "too big in sum": (
        masked(Opcode.BINARY, b"x" * 1024 * 1024, fin=False) + masked(Opcode.CONT, b"x"),
        1009,
    ),
    "not masked": (frame(TEXT, b"hello"), 1002),
    "reserved bit": (b"\xc1\x80\x00\x00\x00\x00", 1002),
    "reserved opcode": (b"\x83\x80\x00\x00\x00\x00", 1002),
    "continuation of nothing": (masked(Opcode.CONT, b"x"), 1002),
    "fragmented ping": (masked(Opcode.PING, b"x", fin=False), 1002),
    "close code not for the wire": (closing(1006), 1002),
    "close of one byte": (masked(Opcode.CLOSE, b"\x03"), 1002),
}


@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
async def test_a_violation_closes_with_its_code_which_the_peer_gets_to_see(
    data: bytes, code: int
) -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(text("before") + data + text("after"))
        assert (await peer.close_frame())[0] == code
        assert await peer.rest() == b""
        peer.close()
        await server.until_idle()
        assert app.only.messages == ["before"]
        assert [end[0] for end in app.only.ends] == [code]


async def test_a_violation_is_told_to_a_peer_that_goes_on_sending() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(masked(Opcode.BINARY, b"x" * 20_000_000))
        assert (await peer.close_frame())[0] == 1009
        assert await peer.rest() == b""
        # Only our side is closed: a reset could overtake the close frame.
        assert server.state.connections
        peer.close()
        await server.until_idle()
        assert app.only.messages == []


async def test_a_message_of_exactly_the_limit_is_received() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(masked(Opcode.BINARY, b"x" * (1024 * 1024)))
        await until(lambda: app.only.messages)


async def test_a_receiver_that_raises_is_logged_and_closed_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Recorder):
        def message_received(self, message: str | bytes) -> None:
            super().message_received(message)
            raise ValueError("on purpose")

    app = TakeoverApp(Failing)
    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(text("one") + text("two"))
        assert (await peer.close_frame())[0] == 1011
        peer.send(closing(1011))
        await until(lambda: app.only.ends)
        assert app.only.messages == ["one"]
        assert [end[0] for end in app.only.ends] == [1011]
    assert "Traceback" in caplog.text
    assert "on purpose" in caplog.text


async def test_a_receiver_that_closes_gets_nothing_more_of_what_came_together() -> None:
    class Closing(Recorder):
        def message_received(self, message: str | bytes) -> None:
            super().message_received(message)
            self.socket.close(4500, "enough")

    app = TakeoverApp(Closing)
    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(text("one") + text("two"))
        assert await peer.close_frame() == (4500, "enough")
        peer.send(text("three") + closing(4500))
        await until(lambda: app.only.ends == [(4500, "enough")])
        assert app.only.messages == ["one"]


# Flow.


async def test_a_peer_that_stops_reading_pauses_the_transport_and_later_gets_all() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server, receive_buffer=4096)
        recorder = await app.first()
        transport = recorder.socket
        sent = 0
        while not transport.is_paused:
            transport.write(frame(TEXT, b"%08d" % sent + b"x" * 1000))
            sent += 1
            if sent % 16 == 0:
                await asyncio.sleep(0.001)
        # The mark, one frame over it, and what the two kernels hold: not megabytes.
        assert transport.buffered_bytes <= 64 * 1024 + 16 * 1100
        assert sent * 1012 < 1024 * 1024
        taken = transport.bytes_taken
        assert 0 < taken < sent * 1012
        assert recorder.writables == 0
        for number in range(sent):
            assert (await peer.message())[:8] == f"{number:08d}"
        await until(lambda: recorder.writables == 1)
        assert not transport.is_paused
        await until(lambda: transport.buffered_bytes == 0)
        assert transport.bytes_taken > taken


async def test_a_peer_that_pings_without_reading_costs_no_memory() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server, receive_buffer=4096)
        recorder = await app.first()
        transport = recorder.socket
        while not transport.is_paused:
            transport.write(frame(TEXT, b"x" * 1000))
            await asyncio.sleep(0)
        held = transport.buffered_bytes
        peer.send(masked(Opcode.PING, b"p" * 125) * 20_000 + masked(Opcode.PING, b"last"))
        await asyncio.wait_for(peer.writer.drain(), PATIENCE)
        peer.send(text("done"))
        await until(lambda: recorder.messages == ["done"])
        assert transport.buffered_bytes <= held
        pongs: list[bytes] = []
        while not pongs:
            opcode, payload = await peer.frame()
            if opcode is Opcode.PONG:
                pongs.append(payload)
        assert pongs == [b"last"]


async def test_last_heard_is_when_the_peer_last_sent_something() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        loop = asyncio.get_running_loop()
        peer = await Peer.open(server)
        recorder = await app.first()
        await asyncio.sleep(0.02)
        before = loop.time()
        peer.send(text("now"))
        await until(lambda: recorder.messages)
        assert before <= recorder.socket.last_heard <= loop.time()


async def test_reading_pauses_and_resumes_without_losing_a_message() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        recorder = await app.first()
        recorder.socket.pause_reading()
        peer.send(text("one") + text("two"))
        await asyncio.wait_for(peer.writer.drain(), PATIENCE)
        await asyncio.sleep(0.02)
        assert recorder.messages == []
        recorder.socket.resume_reading()
        await until(lambda: recorder.messages == ["one", "two"])


async def test_bytes_taken_do_not_count_what_an_abort_threw_away() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        await Peer.open(server, receive_buffer=4096)
        recorder = await app.first()
        transport = recorder.socket
        while not transport.is_paused:
            transport.write(frame(TEXT, b"x" * 1000))
            await asyncio.sleep(0)
        taken = transport.bytes_taken
        transport.abort()
        await until(lambda: recorder.ends)
        assert transport.bytes_taken == taken
        assert transport.buffered_bytes == 0
        assert recorder.ends == [(1006, "")]
        assert recorder.writables == 0


# The closing.


@pytest.mark.parametrize(
    ("sent", "told"), [((1000, "bye"), (1000, "bye")), ((4321, ""), (4321, "")), ((), (1005, ""))]
)
async def test_a_close_of_the_peer_is_answered_and_told(
    sent: tuple[Any, ...], told: tuple[int, str]
) -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(text("last") + closing(*sent) + text("too late"))
        opcode, payload = await peer.frame()
        assert opcode is Opcode.CLOSE
        assert payload == closing_payload(*sent)
        assert await peer.rest() == b""
        await until(lambda: app.only.ends)
        assert app.only.ends == [told]
        assert app.only.messages == ["last"]


def closing_payload(code: int | None = None, reason: str = "") -> bytes:
    return b"" if code is None else code.to_bytes(2, "big") + reason.encode()


async def test_a_close_inside_a_fragmented_message_is_answered_as_any_other() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(masked(Opcode.TEXT, b"half", fin=False) + closing(1000))
        assert await peer.close_frame() == (1000, "")
        await until(lambda: app.only.ends == [(1000, "")])
        assert app.only.messages == []


async def test_an_answer_to_the_last_message_is_sent_before_the_close_is_answered() -> None:
    class Echo(Recorder):
        def message_received(self, message: str | bytes) -> None:
            self.socket.write(frame(TEXT, str(message).encode()))

    app = TakeoverApp(Echo)
    async with serving(app) as server:
        peer = await Peer.open(server)
        peer.send(text("last") + closing(1000))
        assert await peer.message() == "last"
        assert await peer.close_frame() == (1000, "")


async def test_our_close_follows_all_that_was_written_and_waits_for_the_answer() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        recorder = await app.first()
        recorder.socket.write(frame(TEXT, b"last"))
        recorder.socket.close(4505, "é" * 100)
        recorder.socket.write(frame(TEXT, b"too late"))
        recorder.socket.ping()
        recorder.socket.close(1000, "again")
        assert await peer.message() == "last"
        assert await peer.close_frame() == (4505, "é" * 61)
        peer.send(text("crossing"))
        await asyncio.sleep(0.01)
        assert recorder.ends == []
        peer.send(closing(4505))
        await until(lambda: recorder.ends)
        assert recorder.ends == [(4505, "é" * 61)]
        assert recorder.messages == []
        assert await peer.rest() == b""


async def test_a_closing_that_was_completed_leaves_no_timer() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        recorder = await app.first()
        recorder.socket.close(1000, "")
        await peer.close_frame()
        peer.send(closing(1000))
        await until(lambda: recorder.ends)
        timers = [found for found in gc.get_objects() if isinstance(found, asyncio.TimerHandle)]
        assert not [timer for timer in timers if "abort" in repr(timer) and not timer.cancelled()]


async def test_a_close_code_that_may_not_be_sent_is_refused_to_the_caller() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        recorder = await app.first()
        with pytest.raises(UsageError):
            recorder.socket.close(1006, "")
        recorder.socket.close(1000, "")
        assert await peer.close_frame() == (1000, "")


async def test_a_peer_that_does_not_answer_our_close_is_cut_at_the_deadline() -> None:
    app = TakeoverApp()
    async with serving(app, ws=QuickProtocol) as server:
        await Peer.open(server)
        recorder = await app.first()
        recorder.socket.close(1000, "")
        await until(lambda: recorder.ends)
        assert recorder.ends == [(1000, "")]
        await server.until_idle()


async def test_a_peer_that_neither_reads_nor_answers_is_cut_at_the_deadline() -> None:
    app = TakeoverApp()
    async with serving(app, ws=QuickProtocol) as server:
        peer = await Peer.open(server, receive_buffer=4096)
        recorder = await app.first()
        while not recorder.socket.is_paused:
            recorder.socket.write(frame(TEXT, b"x" * 1000))
            await asyncio.sleep(0)
        peer.writer.write_eof()
        await until(lambda: recorder.ends)
        await server.until_idle()


@pytest.mark.parametrize("way", ["abort", "close"])
async def test_a_peer_that_leaves_without_a_word_is_told_as_1006(way: str) -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        recorder = await app.first()
        getattr(peer, way)()
        await until(lambda: recorder.ends)
        assert recorder.ends == [(1006, "")]
        transport = recorder.socket
        transport.write(frame(TEXT, b"late"))
        transport.ping()
        transport.pause_reading()
        transport.resume_reading()
        transport.close(1000, "")
        transport.abort()
        await asyncio.sleep(0.01)
        assert recorder.ends == [(1006, "")]


async def test_the_servers_shutdown_closes_with_1012() -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        peer = await Peer.open(server)
        stopping = asyncio.create_task(server.shut_down())
        assert (await peer.close_frame())[0] == 1012
        peer.send(closing(1012))
        async with asyncio.timeout(PATIENCE):
            await stopping
        assert app.only.ends == [(1012, "restarting")]


async def test_the_servers_shutdown_refuses_an_unanswered_handshake_with_503() -> None:
    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "websocket.disconnect"

    async with serving(waiting) as server:
        peer = await Peer.connect(server)
        peer.send(request())
        await until(lambda: server.state.tasks)
        stopping = asyncio.create_task(server.shut_down())
        assert (await peer.response()).status == 503
        async with asyncio.timeout(PATIENCE):
            await stopping


# Nothing stays behind.


async def assert_cut_at_every_byte_leaves_nothing(before: bytes, cut: bytes) -> None:
    app = TakeoverApp()
    async with serving(app) as server:
        gc.collect()
        gc.disable()
        try:
            files, objects, tasks = open_files(), living(*KINDS), len(asyncio.all_tasks())
            for size in range(len(cut) + 1):
                peer = await Peer.connect(server)
                peer.send(before + cut[:size])
                await asyncio.wait_for(peer.writer.drain(), PATIENCE)
                if size % 2:
                    peer.abort()
                else:
                    peer.close()
            await server.until_idle()
            app.recorders.clear()
            await until(lambda: open_files() == files)
            await until(lambda: len(asyncio.all_tasks()) == tasks)
            assert living(*KINDS) == objects
        finally:
            gc.enable()


async def test_a_handshake_cut_at_every_byte_leaves_nothing_behind() -> None:
    await assert_cut_at_every_byte_leaves_nothing(b"", request("/ws?after=k3:41"))


async def test_frames_cut_at_every_byte_leave_nothing_behind() -> None:
    frames = text("hello") + masked(Opcode.PING, b"x") + masked(Opcode.TEXT, b"y" * 130, fin=False)
    await assert_cut_at_every_byte_leaves_nothing(request(), frames + closing(1000))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_ten_thousand_aborted_connections_leave_memory_flat() -> None:
    app = TakeoverApp()
    whole = request("/ws") + text("hello") + masked(Opcode.TEXT, b"y" * 500, fin=False)

    async def abort_one(number: int) -> None:
        peer = await Peer.connect(server)
        peer.send(whole[: number % (len(whole) + 1)])
        await asyncio.sleep(0)
        peer.abort()
        server.peers.discard(peer)

    async def abort_many(count: int) -> None:
        for start in range(0, count, 50):
            await asyncio.gather(*(abort_one(start + index) for index in range(50)))
            app.recorders.clear()
        await server.until_idle()
        gc.collect()

    async with serving(app) as server:
        await abort_many(1_000)
        files, objects, memory = open_files(), living(*KINDS), resident_bytes()
        await abort_many(10_000)
        app.recorders.clear()
        assert open_files() <= files
        assert living(*KINDS) <= objects
        grown = resident_bytes() - memory
        print(f"grown by {grown} bytes")
        assert grown < 4 * 1024 * 1024

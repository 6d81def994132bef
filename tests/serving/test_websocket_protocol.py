"""Connections taken over by a receiver: frames and closing."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from websockets.frames import Opcode

from catenary.errors import UsageError
from catenary.serving.websocket import WebSocketProtocol
from catenary.serving.websocket_frames import TEXT, frame
from tests.serving.sockets import (
    PATIENCE,
    Peer,
    Recorder,
    TakeoverApp,
    closing,
    masked,
    request,
    serving,
    text,
    until,
)


class QuickProtocol(WebSocketProtocol):
    close_timeout = 0.1


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
        timers = [found for found in gc.get_objects() if type(found) is asyncio.TimerHandle]
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

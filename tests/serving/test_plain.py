"""The transport over plain ASGI messages, with a server that a test plays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from catenary.errors import ConnectionClosed
from catenary.serving.plain import MESSAGE_LIMIT_BYTES, PlainTransport
from catenary.transport import HIGH_WATER_BYTES
from catenary.wires.native import text_frame
from tests.serving.sockets import Recorder, until

DISCONNECT = {"type": "websocket.disconnect", "code": 1001, "reason": "bye"}


class FakeServer:
    """An ASGI server: what it receives for the application, and what it takes from it."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.is_gone = False

    async def receive(self) -> dict[str, Any]:
        return await self.inbox.get()

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        if self.is_gone:
            raise OSError("the peer has gone")
        self.sent.append(message)

    def say(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        self.inbox.put_nowait({"type": "websocket.receive", kind: message})

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    @property
    def types(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.sent]


class Failing(Recorder):
    """A receiver with a defect."""

    def __init__(self, *, when: str) -> None:
        super().__init__()
        self._when = when

    def message_received(self, message: str | bytes) -> None:
        if self._when == "message":
            raise RuntimeError("a defect")
        super().message_received(message)

    def writable(self) -> None:
        if self._when == "writable":
            raise RuntimeError("a defect")


async def opened(
    receiver: Recorder | None = None,
) -> tuple[FakeServer, PlainTransport, Recorder, asyncio.Task[None]]:
    server = FakeServer()
    receiver = receiver or Recorder()
    transport = PlainTransport(receiver, server.receive, server.send)
    receiver.transport = transport
    server.inbox.put_nowait({"type": "websocket.connect"})
    await transport.accept("catenary.v1")
    assert server.sent.pop() == {"type": "websocket.accept", "subprotocol": "catenary.v1"}
    return server, transport, receiver, asyncio.ensure_future(transport.serve())


async def test_frames_are_sent_one_by_one_in_order() -> None:
    """A joined write becomes as many messages; what the server took is counted."""
    server, transport, _, serving = await opened()
    data = b"".join(text_frame(payload) for payload in (b"a", b"b" * 200, b"c" * 70_000))
    transport.write(data)
    await until(lambda: len(server.texts) == 3)
    assert [len(text) for text in server.texts] == [1, 200, 70_000]
    assert (transport.bytes_taken, transport.buffered_bytes) == (len(data), 0)
    server.inbox.put_nowait(DISCONNECT)
    await serving


async def test_a_server_that_takes_nothing_pauses_the_transport() -> None:
    """Above the high water mark; drained, the receiver may write again, and lives."""
    server, transport, receiver, serving = await opened()
    server.takes.clear()
    transport.write(text_frame(b"x" * (HIGH_WATER_BYTES + 1)))
    assert transport.is_paused
    await asyncio.sleep(0)
    heard = transport.last_heard
    await asyncio.sleep(0.002)
    assert transport.last_heard == heard
    server.takes.set()
    await until(lambda: receiver.writables)
    assert not transport.is_paused
    assert transport.last_heard > heard
    server.inbox.put_nowait(DISCONNECT)
    await serving


async def test_messages_come_in_order_unless_reading_is_paused() -> None:
    """Text as text, bytes as bytes."""
    server, transport, receiver, serving = await opened()
    server.say("one")
    server.say(b"two")
    await until(lambda: receiver.messages == ["one", b"two"])
    transport.pause_reading()
    server.say("three")
    server.say("four")
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(receiver.messages) <= 3
    transport.resume_reading()
    await until(lambda: receiver.messages[2:] == ["three", "four"])
    server.inbox.put_nowait(DISCONNECT)
    await serving
    assert receiver.ends == [(1001, "bye")]


async def test_a_close_comes_after_what_was_written_and_nothing_after_it() -> None:
    """The first code counts, a long reason is cut to what a close frame holds."""
    server, transport, receiver, serving = await opened()
    transport.write(text_frame(b"last"))
    transport.close(4503, "é" * 100)
    transport.write(text_frame(b"too late"))
    transport.close(1000, "")
    await serving
    assert server.types == ["send", "close"]
    assert server.sent[-1]["code"] == 4503
    assert len(server.sent[-1]["reason"].encode()) <= 123
    assert receiver.ends[0][0] == 4503
    assert len(receiver.ends) == 1


async def test_messages_after_a_close_are_not_received() -> None:
    """The conversation is over, whatever was on its way."""
    server, transport, receiver, serving = await opened()
    server.takes.clear()
    transport.close(1012, "draining")
    server.say("late")
    for _ in range(10):
        await asyncio.sleep(0)
    server.takes.set()
    await serving
    assert receiver.messages == []


async def test_an_abort_waits_for_nothing() -> None:
    """What is stuck is dropped, and the receiver is told once."""
    server, transport, receiver, serving = await opened()
    server.takes.clear()
    transport.write(text_frame(b"stuck"))
    await asyncio.sleep(0)
    transport.abort()
    await serving
    assert receiver.ends == [(1006, "")]
    assert transport.buffered_bytes == 0


@pytest.mark.parametrize("size", [MESSAGE_LIMIT_BYTES, MESSAGE_LIMIT_BYTES + 1])
async def test_a_message_far_too_large_closes(size: int) -> None:
    """One byte over 1 MiB is 1009; 1 MiB is received, and answered by the session."""
    server, _, receiver, serving = await opened()
    server.say("x" * size)
    if size > MESSAGE_LIMIT_BYTES:
        await serving
        assert receiver.ends[0][0] == 1009
        assert receiver.messages == []
    else:
        await until(lambda: receiver.messages)
        server.inbox.put_nowait(DISCONNECT)
        await serving


async def test_a_peer_that_goes_while_it_is_written_to() -> None:
    """The server's error ends the connection, and is nobody's defect."""
    server, transport, receiver, serving = await opened()
    server.is_gone = True
    transport.write(text_frame(b"x"))
    await serving
    assert receiver.ends == [(1006, "")]


@pytest.mark.parametrize("when", ["message", "writable"])
async def test_a_defect_of_the_receiver_reaches_the_server(when: str) -> None:
    """Which logs it and closes with 1011; the receiver is told of the end all the same."""
    server, transport, receiver, serving = await opened(Failing(when=when))
    if when == "message":
        server.say("x")
    else:
        transport.write(text_frame(b"x"))
    with pytest.raises(RuntimeError, match="a defect"):
        await serving
    assert len(receiver.ends) == 1


async def test_a_cancelled_server_ends_the_connection() -> None:
    """As a server that shuts down does."""
    _, _, receiver, serving = await opened()
    await asyncio.sleep(0)
    for _ in range(5):
        # Some cancel again and again until the application has returned.
        serving.cancel("the server stops")
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError, match="the server stops"):
        await serving
    assert receiver.ends == [(1006, "")]


async def test_a_peer_that_went_before_it_was_accepted() -> None:
    """Nothing is served then."""
    server = FakeServer()
    transport = PlainTransport(Recorder(), server.receive, server.send)
    server.inbox.put_nowait(DISCONNECT)
    with pytest.raises(ConnectionClosed):
        await transport.accept(None)
    server = FakeServer()
    server.is_gone = True
    server.inbox.put_nowait({"type": "websocket.connect"})
    with pytest.raises(ConnectionClosed):
        await PlainTransport(Recorder(), server.receive, server.send).accept(None)

"""Connections taken over by a receiver: slow peers, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import resource
from pathlib import Path

import pytest
from websockets.frames import Opcode

from catenary.serving.http_protocol import HTTPProtocol
from catenary.serving.websocket import WebSocketProtocol
from catenary.serving.websocket_asgi import Conversation
from catenary.serving.websocket_frames import TEXT, frame
from catenary.serving.websocket_inbound import Inbound
from tests.serving.sockets import (
    PATIENCE,
    Peer,
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

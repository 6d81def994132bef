"""A slow application pushes back on the server, and is not taken for a dead one."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

from catenary.client import Limits

from .scripted import Visit, event, quick, scripted

PADDING = "x" * 10_000


def padded(seq: int) -> dict[str, Any]:
    return event(seq, data={"text": PADDING})


class Flood:
    """A script that writes as fast as the client takes, and counts."""

    def __init__(self, total: int, interval: float = 15.0) -> None:
        self.total = total
        self.interval = interval
        self.sent = 0
        self.replies: list[str] = []

    async def __call__(self, visit: Visit) -> None:
        await visit.greet(interval=self.interval)
        first = int((visit.after or "k3:0").split(":")[1]) + 1
        answering = asyncio.create_task(self.answer(visit))
        for seq in range(first, self.total + 1):
            await visit.send(padded(seq))
            self.sent += 1
        await answering

    async def answer(self, visit: Visit) -> None:
        async for raw in visit.socket:
            message = json.loads(raw)
            visit.received.append(message)
            if message["type"] == "app.ask":
                self.replies.append(message["id"])
                await visit.send({"type": "ack", "id": message["id"], "reply": self.sent})

    async def blocked(self) -> None:
        """Wait until the server cannot write any more."""
        before = -1
        while self.sent != before:
            before = self.sent
            await asyncio.sleep(0.2)


async def test_a_slow_application_stops_the_server() -> None:
    """While the application holds one event the server blocks; then everything comes, once."""
    flood = Flood(3_000)
    async with scripted(flood) as server, quick(server.url) as client:
        assert (await anext(client)).seq == 1
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await flood.blocked()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert flood.sent < 2_500, "the server was never stopped"
        assert client._session.inbox.waiting_frames <= 64
        assert grown < 8 << 20, f"{grown:,} bytes"
        rest = [(await anext(client)).seq for _ in range(flood.total - 1)]
        assert rest == list(range(2, flood.total + 1))
        assert len(server.visits) == 1


async def test_send_inside_the_loop_is_answered() -> None:
    """A send from within the iteration is answered behind a backlog, with bounded memory."""
    flood = Flood(3_000)
    limits = Limits(answer_ahead_bytes=2 << 20)
    async with scripted(flood) as server, quick(server.url, limits=limits) as client:
        seen = [(await anext(client)).seq]
        await flood.blocked()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        assert await client.send("app.ask", timeout=10) >= 1
        grown = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        assert grown < 12 << 20, f"{grown:,} bytes"
        assert client._session.inbox.waiting_bytes <= (2 << 20) + len(PADDING) + 1_000
        while len(seen) < flood.total:
            seen.append((await anext(client)).seq)
        assert seen == list(range(1, flood.total + 1))
        assert len(set(flood.replies)) == 1
        # What was passed over for the answer came again on a second connection.
        assert len(server.visits) == 2
        assert server.visits[0].socket.close_code == 1000


async def test_a_break_while_the_application_is_slow() -> None:
    """A reconnect with much unread still hears the greeting, and then waits in peace."""
    tries = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.greet(interval=0.1)
        first = int((visit.after or "k3:0").split(":")[1]) + 1
        for seq in range(first, first + 20):
            await visit.send(padded(seq))
        if visit.number == 1:
            visit.socket.transport.close()
            return
        tries.set()
        await visit.stay()

    # One frame is taken after the break, and the rest is still over the limit.
    limits = Limits(ahead_bytes=50_000, attempt=0.3)
    async with scripted(script) as server, quick(server.url, limits=limits) as client:
        seen = [(await anext(client)).seq]
        await asyncio.sleep(0.3)
        while not tries.is_set():
            seen.append((await anext(client)).seq)
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        assert len(server.visits) == 2
        assert client.stats.attempts == 2
        while len(seen) < 40:
            seen.append((await anext(client)).seq)
        assert seen == list(range(1, 41))


async def test_many_sends_inside_the_loop() -> None:
    """Sending for each event of a long replay comes to an end, and doubles nothing."""
    flood = Flood(400)
    async with scripted(flood) as server, quick(server.url) as client:
        seen = []
        async for one in client:
            seen.append(one.seq)
            if one.seq % 20 == 0:
                await client.send("app.ask", timeout=10)
            if one.seq == flood.total:
                break
        assert seen == list(range(1, flood.total + 1))
        assert len(flood.replies) >= 20


async def test_a_slow_application_shows_life_and_is_patient() -> None:
    """While reading is stopped for many intervals the client sends pongs and stays connected."""
    flood = Flood(2_000, interval=0.1)
    async with scripted(flood) as server, quick(server.url) as client:
        await anext(client)
        await flood.blocked()
        socket = server.visits[0].socket
        heard = []
        receive = socket.protocol.recv_frame

        def recv_frame(frame: Any) -> None:
            heard.append(frame.opcode.name)
            receive(frame)

        socket.protocol.recv_frame = recv_frame  # type: ignore[method-assign]
        await asyncio.sleep(1.0)
        assert heard.count("PONG") >= 5
        assert [(await anext(client)).seq for _ in range(1_999)] == list(range(2, 2_001))
        assert len(server.visits) == 1

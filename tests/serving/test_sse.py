"""The events of a user as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio

from catenary import Identity, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.errors import CloseCode
from catenary.limits import Limits
from catenary.wires.sse import closing_message, sse_message
from tests.serving.bridges import Bridge, bearer, bridge_on, token
from tests.serving.sockets import PATIENCE, Peer, until


@pytest_asyncio.fixture
async def bridge() -> AsyncIterator[Bridge]:
    async with bridge_on("fast") as served:
        yield served


class Stream:
    """The body of one response, message by message, as an EventSource reads it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id = ""
        self.retry: int | None = None
        self._lines = response.aiter_lines()

    async def receive(self) -> dict[str, Any]:
        """The next message; ``StopAsyncIteration`` at the end of the stream."""
        data: dict[str, Any] | None = None
        async with asyncio.timeout(PATIENCE):
            while True:
                line = await anext(self._lines)
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "retry":
                    self.retry = int(value)
                elif name == "data":
                    assert data is None, "one data line a message"
                    data = json.loads(value)
                elif not line and data is not None:
                    return data

    async def until(self, type: str) -> list[dict[str, Any]]:
        messages = [await self.receive()]
        while messages[-1]["type"] != type:
            messages.append(await self.receive())
        return messages

    async def rest(self) -> list[dict[str, Any]]:
        """What comes until the stream ends."""
        messages = []
        try:
            while True:
                messages.append(await self.receive())
        except StopAsyncIteration:
            return messages


@asynccontextmanager
async def streaming(
    bridge: Bridge, query: str = "", *, user_id: str | None = "user_123", **headers: str
) -> AsyncIterator[Stream]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if user_id is not None:
        fields |= bearer(token(user_id))
    async with bridge.http() as http, http.stream("GET", f"/sse{query}", headers=fields) as answer:
        yield Stream(answer)


def note(emitter: UserWebSocketEmitter, count: int = 1) -> None:
    for number in range(count):
        emitter.custom("app.note", {"number": number})


# The wire


def wire(**message: Any) -> list[bytes]:
    return sse_message(json.dumps(message).encode()).split(b"\n")


def test_the_id_is_where_a_reader_continues() -> None:
    """An event's own; a live's and heartbeat's position; just before a gap's end."""
    assert wire(type="app.x", id="k3:7", seq=7)[0] == b"id: k3:7"
    assert wire(type="live", position="k3:9")[0] == b"id: k3:9"
    assert wire(type="heartbeat", position="k3:9")[0] == b"id: k3:9"
    assert wire(type="gap", after="a:1", resumes_at="k3:90")[0] == b"id: k3:89"
    assert wire(type="connected", after="k3:4", position="k3:9")[0] == b"id: k3:4"
    assert wire(type="closing", reason="draining")[0].startswith(b"data: ")
    assert wire(type="position_ok", position="k3:9")[0].startswith(b"data: ")


def test_the_data_is_one_line_whatever_was_emitted() -> None:
    """A raw line break between two tokens of JSON becomes a space."""
    payload = b'{"type":"app.x","id":"k:1","seq":1,"data":{\r\n"text":"a\\nb"}}'
    lines = sse_message(payload).split(b"\n")
    assert lines[2:] == [b"", b""]
    assert json.loads(lines[1].removeprefix(b"data: "))["data"]["text"] == "a\nb"


def test_a_final_close_asks_for_patience() -> None:
    """An EventSource always comes back: not every two seconds then."""
    assert b"retry" not in closing_message(4001, "expired", is_final=False)
    assert closing_message(4505, "too many", is_final=True).startswith(b"retry: 60000\n")


# Streaming


async def test_the_same_messages_as_on_the_native_wire(bridge: Bridge) -> None:
    """Connected, what was emitted before, live, and what comes."""
    note(bridge.emitter(), 2)
    async with streaming(bridge) as stream:
        headers = stream.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache, no-transform"
        assert headers["x-accel-buffering"] == "no"
        connected, *events, live = await stream.until("live")
        assert stream.retry == 2000
        assert connected["user_id"] == "user_123"
        assert [event["seq"] for event in events] == [1, 2]
        assert stream.last_id == live["position"]
        note(bridge.emitter())
        event = await stream.receive()
        assert event["seq"] == 3
        assert stream.last_id == event["id"]


async def test_last_event_id_wins_over_after(bridge: Bridge) -> None:
    """An EventSource repeats its URL with the id of the last message."""
    note(bridge.emitter(), 5)
    epoch = (await bridge.factory.log.head("user_123")).epoch
    async with streaming(bridge, "?after=start", last_event_id=f"{epoch}:3") as stream:
        messages = await stream.until("live")
        assert [m["seq"] for m in messages if "seq" in m] == [4, 5]
    assert bridge.factory.manager.counters.reconnects == 1


async def test_a_gap_and_a_thread_filter_come_as_on_the_native_wire(bridge: Bridge) -> None:
    """A place of another epoch is told; other threads' events are left out."""
    for thread_id in ("t1", "t2", "t1"):
        note(bridge.emitter(thread_id=thread_id))
    async with streaming(bridge, "?after=zz:4&thread_id=t1") as stream:
        _, gap, *events, _ = await stream.until("live")
        assert (gap["type"], gap["reason"]) == ("gap", "epoch")
        assert [event["seq"] for event in events] == [1, 3]


async def test_a_ticket_may_be_presented_again(bridge: Bridge) -> None:
    """For the browser reconnects to the same URL; on /ws it opens nothing."""
    async with bridge.http() as http:
        answer = await http.post("/api/tickets", headers=bearer(token()), json={"purpose": "sse"})
    ticket = answer.json()["ticket"]
    for _ in range(3):
        async with streaming(bridge, f"?ticket={ticket}", user_id=None) as stream:
            assert (await stream.receive())["user_id"] == "user_123"
    code, _ = await bridge.closed_at_once(f"?ticket={ticket}", user_id=None)
    assert code == CloseCode.NOT_AUTHENTICATED


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 401),
        ("", bearer("nonsense"), 401),
        ("?ticket=" + "x" * 43, {}, 401),
        ("?log=user_456", bearer(token()), 403),
        ("?after=nonsense", bearer(token()), 400),
        ("", {**bearer(token()), "last-event-id": "nonsense"}, 400),
        (f"?token={token()}", {}, 400),
    ],
)
async def test_what_is_refused_for_good_is_a_status(
    bridge: Bridge, query: str, headers: dict[str, str], status: int
) -> None:
    """At which an EventSource gives up, as it should."""
    async with bridge.http() as http:
        response = await http.get(f"/sse{query}", headers=headers)
    assert response.status_code == status
    assert set(response.json()) == {"error", "message"}


async def test_while_not_ready_the_stream_ends_at_once_with_200(bridge: Bridge) -> None:
    """At any other status an EventSource would give up for ever."""
    await bridge.factory.drain(0)
    async with bridge.http() as http:
        response = await http.get("/sse", headers=bearer(token()))
    assert (response.status_code, response.text) == (200, "retry: 2000\n\n")
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_a_head_request_opens_no_stream(bridge: Bridge) -> None:
    """It has no body to wait for."""
    async with bridge.http() as http:
        assert (await http.head("/sse", headers=bearer(token()))).status_code == 200
    assert bridge.factory.manager.counters.connections_opened == 0


async def test_a_drain_says_closing_and_ends_the_stream(bridge: Bridge) -> None:
    """No further message is made up for the close."""
    async with streaming(bridge) as stream:
        await stream.until("live")
        await bridge.factory.drain(0)
        (closing,) = await stream.rest()
    assert closing["type"] == "closing"
    assert closing["reason"] == "draining"
    assert bridge.factory.manager.counters.closes[CloseCode.RESTARTING] == 1


async def test_a_disconnect_by_the_application_is_told(bridge: Bridge) -> None:
    """With the code that a WebSocket would have been closed with."""
    async with streaming(bridge) as stream:
        await stream.until("live")
        assert await bridge.factory.manager.disconnect("user_123") == 1
        (closing,) = await stream.rest()
    assert closing["code"] == CloseCode.FORBIDDEN
    assert stream.retry == 60000


async def test_a_stream_counts_among_its_users_connections(bridge: Bridge) -> None:
    """It is seen, and forgotten when the client has gone."""
    manager = bridge.factory.manager
    async with streaming(bridge) as stream:
        await stream.until("live")
        (info,) = manager.connections("user_123")
        assert (info.status, info.lag) == ("live", 0)
    await until(lambda: manager.connection_count == 0)
    assert bridge.factory.log.stream("user_123").watchers == ()


async def test_heartbeats_and_the_end_of_the_credential() -> None:
    """As on the native wire."""
    limits = Limits(heartbeat_interval=0.1, credential_grace=0)
    async with bridge_on("fast", limits=limits) as bridge:
        headers = bearer(token(ttl=2))["authorization"]
        async with streaming(bridge, user_id=None, authorization=headers) as stream:
            messages = await stream.rest()
    types = [message["type"] for message in messages]
    assert types[:2] == ["connected", "live"]
    assert "heartbeat" in types
    assert messages[-1]["code"] == CloseCode.TOKEN_EXPIRED


async def test_a_slow_reader_stops_its_cursor_and_costs_no_memory(bridge: Bridge) -> None:
    """What waits for it stays in the log; reading again it gets all of it."""
    headers = [(b"Authorization", f"Bearer {token()}".encode()), (b"Connection", b"close")]
    peer = await Peer.connect(bridge.server, receive_buffer=128 * 1024)
    lines = [b"GET /sse HTTP/1.1", b"Host: localhost", *(b"%s: %s" % pair for pair in headers)]
    peer.send(b"\r\n".join([*lines, b"", b""]))
    manager = bridge.factory.manager
    await until(lambda: manager.connection_count == 1)
    emitter = bridge.emitter()
    for _ in range(1500):
        emitter.custom("app.big", {"text": "x" * 10_000})
        await asyncio.sleep(0)
    (connection,) = manager._all()
    await until(lambda: connection.transport.is_paused)
    assert connection.transport.buffered_bytes < 4 * 64 * 1024
    assert connection.place.seq < 1500
    received = b""
    async with asyncio.timeout(PATIENCE):
        while b'"seq":1500,' not in received[-30_000:]:
            received += await peer.reader.read(2**16)
    ids = [
        line for line in received.split(b"\n") if line.startswith(b"data: {") and b'"seq":' in line
    ]
    seqs = [json.loads(line.removeprefix(b"data: ").strip())["seq"] for line in ids[:-1]]
    assert seqs == list(range(1, 1500))


async def test_first_messages_have_no_place_here() -> None:
    """Whoever shows nothing is refused; there is no way to say it later."""
    factory = WebSocketBridgeFactory(log="memory://?private", run_drain_timeout=0.2)
    async with bridge_on("plain", factory=factory) as bridge, bridge.http() as http:
        assert (await http.get("/sse")).status_code == 401
    assert factory.manager.waiting_for_auth == 0


async def test_a_ticket_ends_with_its_token(bridge: Bridge) -> None:
    """Once the token that it stands for has expired it opens nothing."""
    tickets = bridge.app.endpoints.tickets
    loop = asyncio.get_running_loop()
    identity = Identity(user_id="user_123", expires_at=tickets._clock() + 0.3)
    ticket = await tickets.issue(identity, purpose="sse")
    async with streaming(bridge, f"?ticket={ticket}", user_id=None) as stream:
        assert (await stream.receive())["type"] == "connected"
    end = loop.time() + 0.4
    await until(lambda: loop.time() > end)
    async with bridge.http() as http:
        assert (await http.get(f"/sse?ticket={ticket}")).status_code == 401

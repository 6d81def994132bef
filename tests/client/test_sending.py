"""Commands, probes and reports over real sockets that break."""

from __future__ import annotations

import asyncio

import pytest

from catenary.client import Client, CommandFailed, Limits
from catenary.errors import UsageError
from catenary.position import Position

from .scripted import Visit, quick, scripted


async def drain(client: Client) -> None:
    async for _ in client:
        pass


async def test_send_brings_the_reply() -> None:
    """A message carries type, id, thread and data; its ack brings the reply."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        message = await visit.receive("user_message")
        await visit.send({"type": "ack", "id": message["id"], "reply": message})
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        reply = await client.send("user_message", {"content": "hello"}, thread_id="t1")
        assert len(reply.pop("id")) == 32
        assert reply == {"type": "user_message", "thread_id": "t1", "data": {"content": "hello"}}


async def test_unanswered_messages_are_sent_again_with_their_ids() -> None:
    """After each break what is open is sent again, in order, with the same ids, until answered."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        for _ in range(3):
            await visit.receive("app.ask")
        if visit.number < 4:
            visit.socket.transport.abort()
            return
        for message in reversed(visit.received):
            await visit.send({"type": "ack", "id": message["id"], "reply": message["data"]["n"]})
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        asked = [client.send("app.ask", {"n": n}, id=f"a{n}") for n in range(3)]
        assert await asyncio.gather(*asked) == [0, 1, 2]
        sent = [[message["id"] for message in visit.received] for visit in server.visits]
        assert sent == [["a0", "a1", "a2"]] * 4


async def test_an_error_fails_the_command() -> None:
    """An error answer raises, with its code, and the client goes on."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        message = await visit.receive("app.ask")
        failed = {"code": "handler_failed", "message": "no"}
        await visit.send({"type": "error", "id": message["id"], **failed})
        message = await visit.receive("app.ask")
        await visit.send({"type": "ack", "id": message["id"]})
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        with pytest.raises(CommandFailed) as caught:
            await client.send("app.ask")
        assert (caught.value.code, caught.value.message) == ("handler_failed", "no")
        assert await client.send("app.ask") is None


async def test_a_timeout_stops_the_resending() -> None:
    """After a timeout the message is not sent again, and the error names its id."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        if visit.number == 1:
            await visit.receive("app.stop")
            visit.socket.transport.abort()
        else:
            message = await visit.receive("app.more")
            await visit.send({"type": "ack", "id": message["id"]})
            await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        with pytest.raises(TimeoutError, match="a1"):
            await client.send("app.ask", id="a1", timeout=0.05)
        stopping = asyncio.create_task(client.send("app.stop", id="a2"))
        await server.visited(2)
        stopping.cancel()
        await client.send("app.more", id="a3")
        assert "a1" not in {message["id"] for message in server.visits[1].received}


async def test_a_cancelled_send_is_forgotten() -> None:
    """Cancelling a send leaves nothing behind that would be sent again."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        sending = asyncio.create_task(client.send("app.ask"))
        await server.visited(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert len(client._session.commands) == 0


@pytest.mark.parametrize(("already_ended", "was_open"), [({}, True), ({"already_ended": True}, 0)])
async def test_cancel_run(already_ended: dict[str, bool], was_open: bool) -> None:
    """Cancelling tells whether the run was still open."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        message = await visit.receive("cancel_run")
        assert (message["run_id"], message["reason"]) == ("r1", "enough")
        await visit.send({"type": "ack", "id": message["id"], **already_ended})
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        assert await client.cancel_run("r1", "enough") == was_open


async def test_ping_measures_and_survives_a_break() -> None:
    """A ping on a connection that breaks is asked again on the next one."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.receive("ping")
        if visit.number == 1:
            visit.socket.transport.abort()
        else:
            await visit.send({"type": "pong"})
            await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        assert 0 < await client.ping() < 5
        assert len(server.visits) == 2


async def test_ping_gives_up_a_dead_connection() -> None:
    """A connection that does not answer a ping is replaced, and the new one is asked."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        if visit.number == 1:
            await visit.socket.wait_closed()
        await visit.stay()

    limits = Limits(probe=0.1)
    async with scripted(script) as server, quick(server.url, limits=limits) as client:
        await client.ping()
        assert len(server.visits) == 2


async def test_report_position_waits_until_the_server_knows() -> None:
    """A report is awaited across a break, and only what is handled is told."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0" if visit.number == 1 else None)
        if visit.number == 1:
            await visit.events(1, 3)
            await visit.receive("position")
            visit.socket.transport.abort()
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        for _ in range(3):
            await anext(client)
        assert await client.report_position() == Position("k3", 2)
        assert server.visits[1].received == [{"type": "position", "position": "k3:2"}]
        client.handled()
        assert await client.report_position() == Position("k3", 3)


async def test_positions_are_reported_by_themselves() -> None:
    """While events are handled the latest position is told, once an interval."""

    told = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.events(1, 100)
        while (await visit.receive("position"))["position"] != "k3:100":
            pass
        told.set()
        await visit.stay()

    limits = Limits(report_interval=0.2)
    async with scripted(script) as server, quick(server.url, limits=limits) as client:
        for _ in range(100):
            await anext(client)
        draining = asyncio.create_task(drain(client))
        await told.wait()
        draining.cancel()
        assert len(server.visits[0].received) <= 3


async def test_names_of_the_protocol_are_refused() -> None:
    """The protocol's own types cannot be sent by hand, nor data that is not JSON."""
    client = Client("ws://127.0.0.1:1/ws")
    with pytest.raises(UsageError, match="belongs to the protocol"):
        await client.send("position")
    async with client:
        with pytest.raises(UsageError, match="must be JSON"):
            await client.send("app.ask", {"it": object()})

"""The asyncio client against a scripted server, over real sockets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from catenary.client import Client, CommandFailed, Gap, Limits, State
from catenary.errors import ConnectionClosed, ProtocolError, UsageError
from catenary.position import Position

from .scripted import Visit, event, quick, scripted


async def take(client: Client, count: int) -> list[int]:
    return [(await anext(client)).seq for _ in range(count)]


async def test_events_arrive_in_order() -> None:
    """What the server sends is iterated over, in order, and as typed events."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.events(1, 3)
        await visit.live(3)
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        event = await anext(client)
        assert (event.type, event.data, event.position) == ("app.number", {"n": 1}, ("k3", 1))
        assert await take(client, 2) == [2, 3]
        assert client.connected is not None
        assert client.connected.user_id == "user_123"
        assert client.stats.events == 3


@pytest.mark.parametrize("size_bytes", [0, 1, 2, 3, 4, 5, 20, 100, -1])
async def test_cut_inside_a_frame(size_bytes: int) -> None:
    """A connection cut after any byte of a frame resumes after the last whole event."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:41" if visit.number == 1 else None)
        if visit.number == 1:
            await visit.event(42)
            visit.cut(event(43), size_bytes)
        else:
            await visit.events(43, 44)
            await visit.stay()

    async with scripted(script) as server, quick(server.url, after="k3:41") as client:
        assert await take(client, 3) == [42, 43, 44]
        assert [visit.after for visit in server.visits] == ["k3:41", "k3:42"]


async def test_many_cuts_lose_and_double_nothing() -> None:
    """Over fifty cuts at changing places every event comes once."""
    total = 500

    async def script(visit: Visit) -> None:
        await visit.greet()
        first = int((visit.after or "k3:0").split(":")[1]) + 1
        for seq in range(first, min(first + 10, total + 1)):
            await visit.event(seq)
        if first + 10 <= total:
            visit.cut(event(first + 10), visit.number * 7 % 120)
        else:
            await visit.stay()

    async with scripted(script) as server, quick(server.url, after="k3:0") as client:
        assert await take(client, total) == list(range(1, total + 1))
        assert client.stats.connections == len(server.visits) == 50


async def test_an_event_in_hand_is_not_handled() -> None:
    """The position moves when the next event is asked for, not when one is handed over."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.events(1, 2)
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        assert await take(client, 1) == [1]
        assert client.position == Position("k3", 0)
        assert await take(client, 1) == [2]
        assert client.position == Position("k3", 1)
        client.handled()
        assert client.position == Position("k3", 2)


async def test_leaving_the_block_handles_the_event_in_hand() -> None:
    """Leaving without an exception counts as handled, and the server is told before the close."""
    visits: list[Visit] = []

    async def script(visit: Visit) -> None:
        visits.append(visit)
        await visit.greet("k3:0")
        await visit.events(1, 2)
        await visit.stay()

    async with scripted(script) as server:
        async with quick(server.url) as client:
            await take(client, 2)
        assert client.position == Position("k3", 2)
        await visits[0].socket.wait_closed()
        assert visits[0].received[-1] == {"type": "position", "position": "k3:2"}
        assert visits[0].socket.close_code == 1000


async def test_an_exception_leaves_the_event_unhandled() -> None:
    """Leaving with an exception keeps the event in hand for the next run."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.events(1, 2)
        await visit.stay()

    async with scripted(script) as server:
        client = quick(server.url)

        async def fail_at_two() -> None:
            async with client:
                async for event in client:
                    if event.seq == 2:
                        raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail_at_two()
        assert client.position == Position("k3", 1)


async def test_a_hole_is_asked_for_again() -> None:
    """An event that is missing ends the connection with 1002, and comes after the resume."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0" if visit.number == 1 else None)
        if visit.number == 1:
            await visit.event(1)
            await visit.event(3)
        else:
            await visit.events(2, 3)
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        assert await take(client, 3) == [1, 2, 3]
        assert server.visits[1].after == "k3:1"
        assert server.visits[0].socket.close_code == 1002


async def test_text_that_is_not_json() -> None:
    """What is not JSON ends the connection and loses nothing."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0" if visit.number == 1 else None)
        if visit.number == 1:
            await visit.event(1)
            await visit.socket.send('{"type": "app.num')
        else:
            await visit.event(2)
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        assert await take(client, 2) == [1, 2]
        assert server.visits[1].after == "k3:1"


async def test_gap_is_raised_and_iteration_goes_on() -> None:
    """A gap comes out of the loop in its place; the next loop continues after it."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.event(1)
        await visit.send(
            {"type": "gap", "after": "k3:1", "resumes_at": "k9:5", "reason": "epoch"},
        )
        await visit.send(event(5, epoch="k9"))
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        seen: list[int] = []

        async def iterate() -> None:
            async for one in client:
                seen.append(one.seq)  # noqa: PERF401  (what came before the gap counts)

        with pytest.raises(Gap) as caught:
            await iterate()
        assert seen == [1]
        gap = caught.value
        assert (gap.after, gap.resumes_at, gap.reason) == (("k3", 1), ("k9", 5), "epoch")
        assert client.position == Position("k3", 1)
        async for one in client:
            assert client.position == Position("k9", 4)
            assert one.position == Position("k9", 5)
            break


@pytest.mark.parametrize("is_async", [False, True])
async def test_gap_handler(is_async: bool) -> None:
    """A handler, plain or async, meets the gap instead, before the event after it."""
    met: list[Any] = []

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.send(
            {"type": "gap", "after": "k3:0", "resumes_at": "k3:7", "reason": "retention"},
        )
        await visit.event(7)
        await visit.stay()

    async def later(gap: Gap) -> None:
        await asyncio.sleep(0)
        met.append(gap.reason)

    def now(gap: Gap) -> None:
        met.append(gap.reason)

    on_gap = later if is_async else now
    async with scripted(script) as server, quick(server.url, on_gap=on_gap) as client:
        assert await take(client, 1) == [7]
        assert met == ["retention"]


@pytest.mark.parametrize("code", [4500, 4501, 4503, 4505, 4999])
async def test_final_codes(code: int) -> None:
    """After a final code what came is still handed over; then the iteration raises, and again."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.event(1)
        await visit.socket.close(code, "enough")

    async with scripted(script) as server, quick(server.url) as client:
        assert await take(client, 1) == [1]
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as caught:
                await anext(client)
            assert (caught.value.code, caught.value.reason) == (code, "enough")
        assert client.state is State.CLOSED
        with pytest.raises(CommandFailed, match="closed"):
            await client.send("app.hello")
        assert len(server.visits) == 1


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4004])
async def test_other_codes_reconnect(code: int) -> None:
    """After any other code the client comes back."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0" if visit.number == 1 else None)
        await visit.event(visit.number)
        if visit.number == 1:
            await visit.socket.close(code)
        else:
            await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        assert await take(client, 2) == [1, 2]


async def test_closing_says_when_to_come_back() -> None:
    """After closing the client waits reconnect_after, to the letter."""
    times: list[float] = []

    async def script(visit: Visit) -> None:
        times.append(asyncio.get_running_loop().time())
        await visit.greet("k3:0")
        if visit.number == 1:
            await visit.send({"type": "closing", "reason": "draining", "reconnect_after": 0.3})
            await visit.socket.close(1012)
            times[0] = asyncio.get_running_loop().time()
        else:
            await visit.event(1)
            await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        await take(client, 1)
        assert 0.25 < times[1] - times[0] < 2


async def test_silence_reconnects() -> None:
    """A connection that brings nothing for 2.5 intervals is replaced."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0", interval=0.08)
        if visit.number == 1:
            await visit.socket.wait_closed()
        else:
            await visit.event(1)
            await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        started = asyncio.get_running_loop().time()
        assert await take(client, 1) == [1]
        assert asyncio.get_running_loop().time() - started > 0.19
        assert server.visits[0].socket.close_code == 1006


async def test_bytes_of_a_long_message_are_a_sign_of_life() -> None:
    """A message that takes longer than 2.5 intervals to come is not silence."""
    data = {"text": "x" * 200_000}

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0", interval=0.1)

        async def slowly() -> Any:
            whole = event_text(1, data)
            for start in range(0, len(whole), 20_000):
                yield whole[start : start + 20_000]
                await asyncio.sleep(0.05)

        await visit.socket.send(slowly())
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        received = await anext(client)
        assert received.data == data
        assert len(server.visits) == 1


def event_text(seq: int, data: dict[str, Any]) -> str:
    return json.dumps(event(seq, data=data))


async def test_a_message_over_the_limit_is_final() -> None:
    """A message that this client will never take is told, not asked for again and again."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.event(1, data={"text": "x" * 20_000})
        await visit.stay()

    async with scripted(script) as server, quick(server.url, max_message_bytes=10_000) as client:
        with pytest.raises(ProtocolError, match="too_large"):
            await anext(client)
        assert len(server.visits) == 1


async def test_cancelling_leaves_no_task() -> None:
    """Cancelling the iterating task, wherever it is, leaves no task and loses no event."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.event(1)
        await visit.receive("app.go")
        await visit.event(2)
        await visit.stay()

    async with scripted(script) as server:
        async with quick(server.url) as client:
            assert await take(client, 1) == [1]
            waiting = asyncio.create_task(take(client, 1))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            going = asyncio.create_task(client.send("app.go"))
            assert await take(client, 1) == [2]
            going.cancel()
        before = asyncio.all_tasks()

        async def iterate() -> None:
            async with quick(server.url) as client:
                async for _ in client:
                    started.set()

        started = asyncio.Event()
        task = asyncio.create_task(iterate())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.visits[-1].socket.wait_closed()
        left = {task for task in asyncio.all_tasks() - before if "catenary" in repr(task)}
        assert not left


async def test_leaving_ends_the_iteration_elsewhere() -> None:
    """Closing the client ends a loop that waits in another task, without an error."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:

        async def iterate() -> int:
            return sum([1 async for _ in client])

        task = asyncio.create_task(iterate())
        await server.visited(1)
        await client.close()
        assert await task == 0


async def test_two_iterations_at_once() -> None:
    """A second task that iterates is told so."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.stay()

    async with scripted(script) as server, quick(server.url) as client:
        first = asyncio.ensure_future(anext(client))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="one task iterates"):
            await anext(client)
        first.cancel()


async def test_a_server_that_is_not_there_yet() -> None:
    """The client begins before its server does, and goes on trying."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.event(1)
        await visit.stay()

    def refuse(number: int, request: Any) -> tuple[int, dict[str, str]] | None:
        return (502, {}) if number < 4 else None

    async with scripted(script, refuse) as server, quick(server.url) as client:
        assert await take(client, 1) == [1]
        assert client.stats.attempts == 4


async def test_threads_and_log_are_asked_for_on_every_attempt() -> None:
    """The filter and the log are in each URL, beside what the URL had."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0" if visit.number == 1 else None)
        await visit.event(visit.number * 10)
        if visit.number == 1:
            await visit.socket.close(1012)
        await visit.stay()

    options: dict[str, Any] = {"thread_ids": ["t 1", "t&2"], "log": "conversation:42"}
    async with scripted(script) as server, quick(server.url + "?x=1", **options) as client:
        assert await take(client, 2) == [10, 20]
        asked = {"x": ["1"], "thread_id": ["t 1", "t&2"], "log": ["conversation:42"]}
        assert server.visits[0].query == asked
        assert server.visits[1].query == {**asked, "after": ["k3:10"]}


async def test_an_attempt_without_connected_is_given_up() -> None:
    """A server that accepts and then says nothing costs one attempt."""

    async def script(visit: Visit) -> None:
        if visit.number == 1:
            await visit.socket.wait_closed()
        await visit.greet("k3:0")
        await visit.event(1)
        await visit.stay()

    limits = Limits(attempt=0.2)
    async with scripted(script) as server, quick(server.url, limits=limits) as client:
        assert await take(client, 1) == [1]
        assert len(server.visits) == 2


@pytest.mark.parametrize(
    "options",
    [{"url": "http://x/ws"}, {"url": "ws://x/ws", "after": "k3-41"}, {"url": "", "on_gap": 1}],
)
def test_mistakes_are_told_at_once(options: dict[str, Any]) -> None:
    """A URL, position or handler that cannot be raises where it is written."""
    with pytest.raises(UsageError):
        Client(**options)


async def test_a_client_that_was_not_opened() -> None:
    """Using a client outside its block says what to do."""
    with pytest.raises(UsageError, match="async with"):
        await anext(Client("ws://127.0.0.1:1/ws"))


def test_the_client_loads_no_server() -> None:
    """Importing the client loads no web server, command line, metrics or JWT library."""
    code = (
        "import sys, catenary.client;"
        "print(sorted({'starlette','uvicorn','typer','prometheus_client','jwt','fastapi',"
        "'pydantic_settings','rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

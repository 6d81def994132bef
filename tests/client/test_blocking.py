"""The client for threads: the same, without a loop of one's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from catenary.client import BlockingClient, CommandFailed, Gap, PositionFile, State
from catenary.errors import ConfigError, ConnectionClosed, UsageError
from catenary.position import Position

from .scripted import Script, Server, Visit, quick_backoff, scripted


@contextmanager
def served(script: Script) -> Iterator[Server]:
    """Run the scripted server in a thread of its own."""
    ready: threading.Event = threading.Event()
    place: list[Any] = []

    async def run() -> None:
        async with scripted(script) as server:
            stop = asyncio.Event()
            place.extend([server, stop, asyncio.get_running_loop()])
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=[run()])
    thread.start()
    ready.wait(5)
    server, stop, loop = place
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def blocking(url: str, **options: Any) -> BlockingClient:
    return BlockingClient(url, **{"backoff": quick_backoff(), "close_timeout": 0.5, **options})


async def echo(visit: Visit) -> None:
    await visit.greet("k3:0" if visit.number == 1 else None)
    first = 1 if visit.number == 1 else int((visit.after or "").split(":")[1]) + 1
    await visit.event(first)
    while True:
        message = await visit.receive("app.ask")
        if message["data"].get("cut") and visit.number == 1:
            visit.socket.transport.abort()
            return
        first += 1
        await visit.event(first)
        await visit.send({"type": "ack", "id": message["id"], "reply": message["data"]})


def test_iterating_and_sending() -> None:
    """Events are iterated over and replies come back, in a plain thread."""
    with served(echo) as server, blocking(server.url) as client:
        seen = []
        for one in client:
            seen.append(one.seq)
            if one.seq == 5:
                break
            assert client.send("app.ask", {"n": one.seq}) == {"n": one.seq}
        assert seen == [1, 2, 3, 4, 5]
        assert client.position == Position("k3", 4)
        assert client.state is State.REPLAYING
    assert client.position == Position("k3", 5)


def test_three_threads() -> None:
    """One thread iterates while two send, across a break; nothing is lost or mixed up."""
    with served(echo) as server, blocking(server.url) as client:

        def ask(name: str) -> list[Any]:
            asked = [{"n": n, "who": name, "cut": n == 10} for n in range(25)]
            replies = [client.send("app.ask", data, timeout=10) for data in asked]
            assert replies == asked
            return replies

        with ThreadPoolExecutor(3) as pool:
            iterating = pool.submit(lambda: [next(client).seq for _ in range(50)])
            asking = [pool.submit(ask, name) for name in "ab"]
            assert sum(len(future.result(15)) for future in asking) == 50
            assert iterating.result(15) == list(range(1, 51))
        assert len(server.visits) == 2


def test_a_timeout_loses_no_event() -> None:
    """receive gives up after its timeout, and the event that comes later is not lost."""
    go = threading.Event()

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await asyncio.to_thread(go.wait)
        await visit.events(1, 3)
        await visit.stay()

    with served(script) as server, blocking(server.url) as client:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                client.receive(timeout=0.01)
        go.set()
        seen: list[int] = []
        while len(seen) < 3:
            try:
                event = client.receive(timeout=0.001)
            except TimeoutError:
                continue
            assert event is not None
            seen.append(event.seq)
        assert seen == [1, 2, 3]


def test_closing_from_another_thread() -> None:
    """Closing ends a loop and fails a send that wait in other threads."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.stay()

    with served(script) as server, ThreadPoolExecutor(2) as pool:
        client = blocking(server.url)
        client.open()
        iterating = pool.submit(list, client)
        sending = pool.submit(client.send, "app.ask")
        client.ping()
        client.close()
        client.close()
        assert iterating.result(5) == []
        for call in (sending.result, client.ping, client.report_position):
            with pytest.raises(CommandFailed, match="closed"):
                call()
        assert list(client) == []
    assert "catenary client" not in {thread.name for thread in threading.enumerate()}


def test_gaps_and_final_codes_are_raised() -> None:
    """What the asyncio client raises is raised here too."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.send({"type": "gap", "after": "k3:0", "resumes_at": "k3:5", "reason": "x"})
        await visit.event(5)
        await visit.socket.close(4505, "too many")

    with served(script) as server, blocking(server.url) as client:
        with pytest.raises(Gap):
            next(client)
        assert next(client).seq == 5
        with pytest.raises(ConnectionClosed, match="4505"):
            next(client)


def test_a_second_iterating_thread_is_told() -> None:
    """Two threads cannot iterate at once."""

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.receive("app.ask")
        await visit.event(1)
        await visit.stay()

    with served(script) as server, blocking(server.url) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(next, client)
        while not client._iterating.locked():
            pass
        with pytest.raises(UsageError, match="one thread iterates"):
            next(client)
        sending = pool.submit(client.send, "app.ask", timeout=0.1)
        assert first.result(5).seq == 1
        assert isinstance(sending.exception(5), TimeoutError)


def test_a_function_in_the_client_thread_cannot_wait_for_it() -> None:
    """A gap handler that calls the client would wait for itself; it is told so."""
    told: list[Exception] = []

    async def script(visit: Visit) -> None:
        await visit.greet("k3:0")
        await visit.send({"type": "gap", "after": "k3:0", "resumes_at": "k3:5", "reason": "x"})
        await visit.event(5)
        await visit.stay()

    def on_gap(gap: Gap) -> None:
        for call in (client.report_position, client.close):
            try:
                call()
            except UsageError as error:
                told.append(error)

    with served(script) as server:
        client = blocking(server.url, on_gap=on_gap)
        with client:
            assert next(client).seq == 5
    assert len(told) == 2


def test_a_failure_to_open_leaves_no_thread(tmp_path: Any) -> None:
    """If the position store cannot be read, opening raises and the thread ends."""
    path = tmp_path / "positions.json"
    path.write_text("nonsense")
    with pytest.raises(ConfigError):
        blocking("ws://127.0.0.1:1/ws", position_store=PositionFile(path)).open()
    assert "catenary client" not in {thread.name for thread in threading.enumerate()}

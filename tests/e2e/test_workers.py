"""``catenary serve --workers``: several real processes on one port, over one Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from catenary.client import Client, State
from tests.redis_server import url_of_its_own

from .breakable_app import BROKEN
from .bridge_app import ACKNOWLEDGED
from .server import KEYS, Server, token_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WORKERS = 2
USER = "user_123"
PATIENCE = 40.0


@asynccontextmanager
async def serving(
    directory: Path,
    *arguments: str,
    app: str = "tests.e2e.bridge_app:make_bridge",
    **environment: str,
) -> AsyncIterator[Server]:
    """Serve with two workers over a log of their own."""
    server = Server(
        directory,
        *("serve", "--workers", str(WORKERS), "--log", url_of_its_own(), "--app", app, *arguments),
        **{**KEYS, ACKNOWLEDGED: str(directory / "acknowledged"), **environment},
    )
    async with server:
        workers = workers_of(server)
        yield server
    # Whatever became of the parent, nobody is left.
    await until(lambda: not any(worker.is_running() for worker in workers))


def workers_of(server: Server) -> list[psutil.Process]:
    """Return the workers that live, oldest first."""
    children = psutil.Process(server.pid).children()
    found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return sorted(found, key=lambda worker: float(worker.create_time()))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def clients_on_both(server: Server) -> AsyncIterator[dict[str, list[Client]]]:
    """Connect a user again and again, until each worker has a connection of theirs."""
    clients: list[Client] = []
    async with server.api() as http:
        while True:
            client = Client(server.websocket, token=lambda: token_of(USER), after="now")
            await client.open()
            clients.append(client)
            await until(lambda client=client: client.state is State.LIVE)  # type: ignore[misc]
            shown = (await http.get("/api/inspect", params={"user": USER})).json()["connections"]
            nodes = {connection["connection_id"]: connection["node"] for connection in shown}
            if len(set(nodes.values())) == WORKERS:
                break
            assert len(clients) < 25, "one worker takes all"
    by_node: dict[str, list[Client]] = {}
    for client in clients:
        assert client.connected is not None
        by_node.setdefault(nodes[client.connected.connection_id], []).append(client)
    try:
        yield by_node
    finally:
        for client in clients:
            await client.close()


async def publish(server: Server, count: int) -> None:
    """Publish on a new connection each time, so that any worker may get it."""
    for number in range(count):
        async with server.api() as http:
            event = {"type": "app.tick", "data": {"n": number}}
            answer = await http.post(f"/api/users/{USER}/events", json=event)
            assert answer.status_code == 201, answer.text


async def all_read(by_node: dict[str, list[Client]], count: int) -> None:
    """Let every client read so many events, and check that they are those published last."""
    for client in (client for clients in by_node.values() for client in clients):
        found: list[int] = []
        async with asyncio.timeout(PATIENCE):
            async for event in client:
                found.append(event.data["n"])
                if len(found) == count:
                    break
        assert found == list(range(count))


async def test_they_share_one_port_and_one_log(tmp_path: Path) -> None:
    """Each takes connections; what one is given reaches the readers of all; each may be asked."""
    first = neighbours(WORKERS)
    async with (
        serving(tmp_path, "--worker-ports", str(first)) as server,
        clients_on_both(server) as by_node,
    ):
        assert server.said.count("http://") == 1
        assert f"with {WORKERS} workers" in server.said
        for number, worker in enumerate(workers_of(server), start=1):
            assert f"worker {number} is process {worker.pid}" in server.errors()
        await publish(server, 10)
        await all_read(by_node, 10)
        counts = [await connections_of(port) for port in range(first, first + WORKERS)]
        assert sorted(counts) == sorted(map(len, by_node.values()))
        assert await server.stop() == 0


def neighbours(count: int) -> int:
    """Return the first of so many ports, one after another, that are free."""
    for first in range(20_000, 30_000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no ports are free")


async def connections_of(port: int) -> int:
    """Ask a worker on its own port how many connections it has."""
    base_url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base_url, trust_env=False) as http:
        assert (await http.get("/readyz")).status_code == 200
        lines = (await http.get("/metrics")).text.splitlines()
    (line,) = [line for line in lines if line.startswith("catenary_connections ")]
    return int(float(line.split()[1]))


@pytest.mark.parametrize("whom", ["parent", "group"])
async def test_the_first_signal_drains_all_of_them(tmp_path: Path, whom: str) -> None:
    """A manager's SIGTERM to the parent, or a terminal's Ctrl+C to all of them."""
    async with serving(tmp_path) as server, clients_on_both(server) as by_node:
        if whom == "parent":
            server.ask_to_stop()
        else:
            for process in (*workers_of(server), psutil.Process(server.pid)):
                process.send_signal(signal.SIGINT)
        assert await server.ended() == 0
        count = sum(map(len, by_node.values()))
        assert server.errors().count("draining: ") == WORKERS
        assert server.errors().count("closed with 1012") == count


async def test_the_second_signal_ends_all_of_them_at_once(tmp_path: Path) -> None:
    """A run that would go on for a minute does not hold them up."""
    async with serving(tmp_path, "--run-drain-timeout", "60") as server:
        async with Client(server.websocket, token=lambda: token_of(USER)) as client:
            await client.send("work", {}, thread_id="t1", timeout=PATIENCE)
        server.ask_to_stop()
        await until(lambda: server.errors().count("draining: ") == WORKERS)
        async with asyncio.timeout(10):
            assert await server.stop() == 128 + signal.SIGTERM


async def test_one_that_ends_is_replaced(tmp_path: Path) -> None:
    """Killed or asked to leave: its readers come back and miss nothing; those of the other stay."""
    async with serving(tmp_path) as server, clients_on_both(server) as by_node:
        first, second = workers_of(server)
        first.kill()
        await publish(server, 20)
        await all_read(by_node, 20)
        await until(lambda: len(workers_of(server)) == WORKERS)
        assert first not in workers_of(server)
        assert second in workers_of(server)
        assert "worker 1 ended with status -9" in server.errors()
        stayed = [
            {client.stats.connections for client in clients} == {1} for clients in by_node.values()
        ]
        assert sorted(stayed) == [False, True]
        second.terminate()
        await publish(server, 20)
        await all_read(by_node, 20)
        await until(lambda: "worker 2 has left in order" in server.errors())
        await until(lambda: len(workers_of(server)) == WORKERS)


async def test_a_parent_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    """The workers hear that it is gone, and leave in order; the port is free."""
    async with serving(tmp_path) as server:
        workers = workers_of(server)
        await server.kill()
        await until(lambda: not any(worker.is_running() for worker in workers))
        assert server.errors().count("draining: ") == WORKERS
        await server.start()


async def test_one_that_cannot_start_again_is_tried_again(tmp_path: Path) -> None:
    """What its application says is logged; the others serve on, and it comes back."""
    broken = tmp_path / "broken"
    app = "tests.e2e.breakable_app:make_bridge"
    async with serving(tmp_path, app=app, **{BROKEN: str(broken)}) as server:
        broken.touch()
        workers_of(server)[0].kill()
        await until(lambda: "worker 1 cannot start, trying again: it is broken" in server.errors())
        await publish(server, 3)
        broken.unlink()
        await until(lambda: server.errors().count("worker 1 is process") > 2)
        assert await server.stop() == 0


@pytest.mark.parametrize("app", ["breakable_app", "ending_app"])
async def test_one_that_never_starts_ends_the_server(tmp_path: Path, app: str) -> None:
    """The status is 2, the error says why, once, and nobody is left."""
    (tmp_path / "broken").touch()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "catenary.cli", "serve", "--workers", str(WORKERS), "--port", "0"),
        *("--log", url_of_its_own(), "--app", f"tests.e2e.{app}:make_bridge"),
        env={**os.environ, **KEYS, BROKEN: str(tmp_path / "broken")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 2
    assert out == b""
    says = b"it is broken" if app == "breakable_app" else b"ended with status 7 before it listened"
    assert err.count(says) == 1, err

"""The tutorial, done as it says, and broken as it says."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from catenary import WebSocketEvent
from catenary.auth import sign_token
from catenary.client import Client
from catenary.validate.stores import RedisServer, free_port
from tests.browser import SECONDS, Console, launched
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "tutorial.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the tutorial has one save."""
    server, watcher, *_ = blocks(PAGE, "python")
    (tmp_path / "chat.py").write_text(server)
    (tmp_path / "watch.py").write_text(watcher)
    (tmp_path / "page.html").write_text(blocks(PAGE, "html")[0])
    return tmp_path


def started(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = next(block for block in blocks(PAGE, "sh") if block.startswith("uvicorn "))
    words = [sys.executable, "-m", *command.split(), "--port", str(port), "--log-level", "warning"]
    return subprocess.Popen(words, cwd=folder)


@asynccontextmanager
async def served(folder: Path, port: int) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The server, started by the command of the tutorial; killed at the end."""
    process = started(folder, port)
    try:
        async with httpx.AsyncClient() as http:
            await ready(http, f"http://127.0.0.1:{port}", process)
        yield process
    finally:
        process.kill()
        process.wait()


async def ready(http: httpx.AsyncClient, url: str, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(15):
        while process.poll() is None:
            try:
                if (await http.get(f"{url}/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError(f"the server ended with {process.returncode}")


async def test_the_server_the_page_and_the_client_work_together(folder: Path) -> None:
    """The page and its script are served; the client prints the whole answer."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with served(folder, port), httpx.AsyncClient() as http:
        assert "/static/catenary.js" in (await http.get(url)).text
        script = await http.get(f"{url}/static/catenary.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert "connect" in script.text
        process = await asyncio.create_subprocess_exec(
            sys.executable, "watch.py", url, cwd=folder, stdout=subprocess.PIPE
        )
        printed, _ = await process.communicate()
    lines = printed.decode().splitlines()
    assert lines[0] == "You said: How are the bridges? "
    assert lines[1].startswith("agent_completed at ")


async def test_a_server_killed_in_the_middle_loses_nothing(folder: Path) -> None:
    """The client goes on without a hole, and its run is closed as lost."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    async def token() -> str:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{url}/token")).text

    seen: list[WebSocketEvent] = []
    client = Client(url.replace("http", "ws") + "/ws", token=token)
    async with served(folder, port) as process, client:
        await client.send("user_message", {"content": "one two three four five six"})
        async for event in client:
            seen.append(event)
            if [known.type for known in seen].count("agent_delta") == 2:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        async with served(folder, port):
            async for event in client:
                seen.append(event)
                if event.type == "agent_error":
                    break
    assert seen[-1].data["code"] == "producer_lost"
    firsts = [event.from_seq or event.seq for event in seen]
    assert firsts == [1, *(event.seq + 1 for event in seen[:-1])]


def test_the_server_has_about_forty_lines() -> None:
    """As the tutorial promises to be short."""
    lines = [line for line in blocks(PAGE, "python")[0].splitlines() if line.strip()]
    assert len(lines) <= 40


@pytest.fixture
def asking(folder: Path) -> Path:
    """The folder after the part on approvals."""
    asks = blocks(PAGE, "python")[2]
    server = folder / "chat.py"
    before, handler, after = server.read_text().partition('@factory.on_message("user_message")')
    assert handler
    server.write_text(before + asks + "\n\n" + after[after.index("async def token") :])
    page = folder / "page.html"
    form = '  document.querySelector("form")'
    (more,) = blocks(PAGE, "js")
    page.write_text(page.read_text().replace(form, f"{more}\n{form}"))
    return folder


async def ask_and_kill(folder: Path, port: int, client: Client) -> str:
    """Kill the server once it has asked; return the id of its question."""
    async with served(folder, port), client:
        await client.send("user_message", {"content": "clean up"})
        async for event in client:
            if event.type == "input_requested":
                return str(event.data["request_id"])
    raise AssertionError("nothing was asked")


async def test_an_approval_outlives_the_server(asking: Path) -> None:
    """What the agent asked before the kill is answered after it, and another run goes on."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    async def token() -> str:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{url}/token")).text

    def client() -> Client:
        return Client(url.replace("http", "ws") + "/ws", token=token, after="start")

    request_id = await ask_and_kill(asking, port, client())
    async with served(asking, port), client() as late:
        await late.answer(request_id, True)
        async for event in late:
            if event.type == "agent_delta":
                break
    assert event.data["delta"] == "Deleted: old.txt, older.txt"


@pytest.mark.browser
async def test_the_page_asks_and_shows_the_answer(asking: Path) -> None:
    """Two buttons, in every tab, until the question has its answer."""
    port = free_port()
    async with served(asking, port), launched() as browser:
        tabs = [await browser.new_page() for _ in range(2)]
        consoles = [Console(tab) for tab in tabs]
        for tab in tabs:
            await tab.goto(f"http://127.0.0.1:{port}")
        await tabs[0].fill("input", "clean up")
        await tabs[0].press("input", "Enter")
        for tab in tabs:
            await tab.get_by_role("button", name="yes").wait_for(timeout=15 * SECONDS)
        await tabs[1].get_by_role("button", name="no").click()
        for tab in tabs:
            await tab.get_by_text("Nothing deleted").wait_for(timeout=15 * SECONDS)
            assert await tab.get_by_role("button").count() == 0
        assert [console.own_errors for console in consoles] == [[], []]


async def test_two_nodes_show_the_same(asking: Path) -> None:
    """Asked on one node, seen on the other, which goes on when the first is killed."""
    if not RedisServer.is_installed():
        pytest.skip("redis-server is not installed")
    line = blocks(PAGE, "python")[3].strip()
    server = asking / "chat.py"
    one = 'factory = WebSocketBridgeFactory(log="sqlite:///chat.db")'
    assert one in server.read_text()
    ports = [free_port(), free_port()]
    async with RedisServer() as redis:
        here = line.replace("redis://127.0.0.1:6379/0", redis.url)
        server.write_text(server.read_text().replace(one, here))
        token = sign_token("user_123", secret="a secret for this tutorial, of 32 bytes or more")
        async with served(asking, ports[1]), served(asking, ports[0]) as first:
            clients = [Client(f"ws://127.0.0.1:{port}/ws", token=token) for port in ports]
            async with clients[0], clients[1]:
                await clients[0].send("user_message", {"content": "clean up"})
                async for event in clients[1]:
                    if event.type == "input_requested":
                        break
                first.kill()
                await clients[1].answer(event.data["request_id"], True)
                async for event in clients[1]:
                    if event.type == "agent_delta":
                        break
    assert event.data["delta"] == "Deleted: old.txt, older.txt"

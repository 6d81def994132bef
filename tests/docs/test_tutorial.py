"""The tutorial, done as it says, and broken as it says."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from catenary import WebSocketEvent
from catenary.client import Client
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "tutorial.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the tutorial has one save."""
    server, watcher = blocks(PAGE, "python")
    (tmp_path / "chat.py").write_text(server)
    (tmp_path / "watch.py").write_text(watcher)
    (tmp_path / "page.html").write_text(blocks(PAGE, "html")[0])
    return tmp_path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


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

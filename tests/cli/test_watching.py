"""tail follows events as they come, across a restart of the server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.e2e.server import KEYS, REPOSITORY, Server


async def emit(server: Server, number: int) -> None:
    async with server.api() as http:
        body = {"type": "app.tick", "data": {"number": number}}
        response = await http.post("/api/users/user_123/events", json=body)
        assert response.status_code == 201


async def test_tail_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    """Every event once, and Ctrl+C is an end in order."""
    log = f"sqlite:///{tmp_path / 'events.db'}"
    environment = {**os.environ, **KEYS}
    async with Server(tmp_path, "serve", "--log", log, **KEYS) as server:
        command = [sys.executable, "-m", "catenary.cli", "tail", "user_123", "--json"]
        tail = await asyncio.create_subprocess_exec(
            *command, "--url", server.url, stdout=PIPE, env=environment, cwd=REPOSITORY
        )
        assert tail.stdout is not None
        try:
            await emit(server, 1)
            first = (await tail.stdout.readline()).decode()
            await server.kill()
            await server.start()
            await emit(server, 2)
            second = (await tail.stdout.readline()).decode()
            tail.send_signal(signal.SIGINT)
            assert await tail.stdout.read() == b""
            assert await tail.wait() == 0
        finally:
            if tail.returncode is None:
                tail.kill()
    assert '"number":1' in first
    assert '"number":2' in second

"""A real server in a process of its own, which a test kills and starts again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from catenary.auth import sign_token

SECRET = "a secret for tests, long enough for HS256"
API_KEY = "an-api-key-for-tests"
KEYS = {"CATENARY_JWT_SECRET": SECRET, "CATENARY_API_KEY": API_KEY}
START_TIMEOUT = 40.0
REPOSITORY = Path(__file__).parents[2]


class Server:
    """
    ``catenary`` with some arguments, on one port through all its lives.

    What it writes to standard error goes to ``<directory>/stderr``.
    """

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        self._directory = directory
        self._arguments = arguments
        self._environment = environment
        self._process: Process | None = None
        self.port = 0
        self.kills = 0
        self.said = ""
        """The first line that it wrote to standard output."""

    async def start(self) -> None:
        """Start it, and wait until it says that it listens."""
        environment = {**os.environ, **self._environment}
        command = [sys.executable, "-m", "catenary.cli", *self._arguments, "--port", str(self.port)]
        with (self._directory / "stderr").open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=PIPE, stderr=errors, env=environment, cwd=REPOSITORY
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT):
            self.said = (await self._process.stdout.readline()).decode()
        found = re.search(r"http://[^\s:]+:(\d+)", self.said)
        assert found, f"it said {self.said!r}: {self.errors()}"
        self.port = int(found[1])

    async def kill(self) -> None:
        """End it as a crash would."""
        self.kills += 1
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """Ask it to end in order; return its exit status."""
        return await self._end(signal.SIGTERM)

    def ask_to_stop(self) -> None:
        """Ask it to end in order, and do not wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The id of its process, while it runs."""
        assert self._process is not None
        return self._process.pid

    async def ended(self) -> int:
        """Wait for its end; return its exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    def errors(self) -> str:
        """Return what it wrote to standard error, in all its lives."""
        return (self._directory / "stderr").read_text()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end(signal.SIGKILL)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def api(self) -> httpx.AsyncClient:
        """Return a client of its API that shows the key."""
        headers = {"authorization": f"Bearer {API_KEY}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=5, trust_env=False)


def token_of(user_id: str) -> str:
    """Return a token that the server takes."""
    return sign_token(user_id, secret=SECRET)

"""A bridge in a process of its own, which a validation kills, freezes and starts again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from types import TracebackType
from typing import Self

import httpx

from catenary.auth import sign_token
from catenary.errors import ValidationFailed
from catenary.validate.bridges import RemoteBridge
from catenary.validate.rows import Need
from catenary.validate.stores import free_port

START_SECONDS = 20.0
ERROR_LINES = 30
APP = "catenary.validate.workload:make_bridge"


class BridgeProcess(RemoteBridge):
    """
    ``catenary serve`` on a port of this machine, on the same one through all its lives.

    Made by :meth:`starting`; ``async with`` kills it at the end. ``settings``
    are those of the server, by the names of their environment variables
    without the prefix, such as ``heartbeat_interval``.
    """

    met = frozenset({Need.PROCESS})

    def __init__(
        self, port: int, *, log: str, app: str, secret: str, api_key: str, **settings: object
    ) -> None:
        super().__init__(
            f"ws://127.0.0.1:{port}/ws",
            token=lambda user_id: sign_token(user_id, secret=secret),
            api_key=api_key,
        )
        self.port = port
        self._settings = {
            "log": log, "app": app, "jwt_secret": secret, "api_key": api_key, **settings,
        }  # fmt: skip
        self._process: Process | None = None
        self._listening: asyncio.Event = asyncio.Event()
        self._reading: list[asyncio.Task[None]] = []
        self._errors: deque[str] = deque(maxlen=ERROR_LINES)

    @classmethod
    def on_a_free_port(cls, *, log: str = "memory://", app: str = APP, **settings: object) -> Self:
        """Return one that has not started."""
        (process,) = cls.nodes(1, log=log, app=app, **settings)
        return process

    @classmethod
    def nodes(cls, count: int, *, log: str, app: str = APP, **settings: object) -> tuple[Self, ...]:
        """Return several that have not started, with one log, secret and key."""
        secret, api_key = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
        return tuple(
            cls(free_port(), log=log, app=app, secret=secret, api_key=api_key, **settings)
            for _ in range(count)
        )

    # Life

    async def start(self, *, timeout: float = START_SECONDS) -> None:
        """
        Start it, and wait until it is ready.

        Raises:
            ValidationFailed: If it is not within ``timeout`` seconds; with what it wrote.
        """
        await self.spawn()
        try:
            async with asyncio.timeout(timeout):
                await self._listening.wait()
                while not await self.is_ready():  # noqa: ASYNC110 - another process tells nobody
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise ValidationFailed(
                f"the server was not ready within {timeout:g} s; it wrote: {self.errors()}"
            ) from None

    async def spawn(self) -> None:
        """Start it, and wait for nothing."""
        settings = {
            f"CATENARY_{name.upper()}": str(value) for name, value in self._settings.items()
        }
        self._listening.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "catenary.cli", "serve", "--port", str(self.port),
            stdout=PIPE, stderr=PIPE, env={**os.environ, **settings},
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._reading = [
            asyncio.create_task(self._read(self._process.stdout)),
            asyncio.create_task(self._read(self._process.stderr)),
        ]

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            text = line.decode(errors="replace").rstrip()
            if re.search(r"http://[^\s:]+:\d+", text):
                self._listening.set()
            self._errors.append(text)

    async def is_ready(self) -> bool:
        """Ask whether it is ready to serve."""
        try:
            async with self.http() as http:
                return (await http.get("/readyz")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async def kill(self) -> None:
        """End it as a crash would, with SIGKILL."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """Ask it to end in order; return its exit status."""
        return await self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it in the middle, with its sockets open (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.send_signal(number)
        status = await process.wait()
        await asyncio.gather(*self._reading)
        return status

    @property
    def pid(self) -> int:
        """The id of its process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def errors(self) -> str:
        """Return the last lines that it wrote."""
        return "\n".join(self._errors)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()
        self.close()

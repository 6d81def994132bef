"""Servers that a validation starts beside the bridge: a store for its log, a load balancer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from catenary.errors import ValidationFailed
from catenary.validate.patience import until

START_SECONDS = 10.0

_random = random.SystemRandom()


_PORTS = range(20_000, 32_000)
"""Below those that Linux, macOS and Windows give to connections, one of which could take it first."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    while True:
        port = _random.choice(_PORTS)
        with socket.socket() as probe:
            # What a server left behind here does not keep the next one from it.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class StartedServer:
    """
    A server program on a port of this machine, in a directory of its own, killed at the end.

    It keeps its port through all its lives. A subclass says how it is called.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="catenary-validate-")
        self.directory = Path(self._directory.name)
        self._process: Process | None = None

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    async def start(self) -> None:
        """
        Start it, and wait until it listens.

        Raises:
            ValidationFailed: If it does not within 10 s.
        """
        command = self._command()
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        await until(self._listens, what=f"{command[0]} listens", timeout=START_SECONDS)

    def _listens(self) -> bool:
        if self._process is not None and self._process.returncode is not None:
            raise ValidationFailed(f"{self._command()[0]} ended with {self._process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def freeze(self) -> None:
        """Stop it in the middle, with its sockets open (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Ask it to end in order."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._end(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._signal(signal.SIGCONT)
                self._signal(number)
        await self._process.wait()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()
        self._directory.cleanup()


class RedisServer(StartedServer):
    """A Redis that writes every change to its file before it answers (AOF always)."""

    @staticmethod
    def is_installed() -> bool:
        """Whether there is a redis-server, and the client library."""
        return shutil.which("redis-server") is not None and find_spec("redis") is not None

    def _command(self) -> Sequence[str]:
        return (
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
            "--dir", str(self.directory), "--save", "", "--appendonly", "yes",
            "--appendfsync", "always",
        )  # fmt: skip

    @property
    def url(self) -> str:
        """The URL of an event log on it, whose term goes on when it is started again."""
        return f"redis://127.0.0.1:{self.port}/0?trust_restart=1"


class NatsServer(StartedServer):
    """A NATS server that keeps its streams in files."""

    @staticmethod
    def is_installed() -> bool:
        """Whether there is a nats-server, on the path or beside Python."""
        return _nats_program() is not None

    def _command(self) -> Sequence[str]:
        program = _nats_program() or "nats-server"
        address = ("--addr", "127.0.0.1", "--port", str(self.port))
        return (program, *address, "--jetstream", "--store_dir", str(self.directory))

    @property
    def url(self) -> str:
        """The URL of an event log on it, whose term goes on when it is started again."""
        return f"nats://127.0.0.1:{self.port}?trust_restart=1"


def _nats_program() -> str | None:
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.exists() else shutil.which("nats-server")


class LoadBalancer(StartedServer):
    """HAProxy in front of several nodes; one that is not ready gets nothing new."""

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self._ports = ports

    @staticmethod
    def is_installed() -> bool:
        """Whether there is an haproxy."""
        return shutil.which("haproxy") is not None

    def _command(self) -> Sequence[str]:
        servers = "\n".join(
            f"  server node{number} 127.0.0.1:{port} check inter 200ms fall 1 rise 1"
            for number, port in enumerate(self._ports)
        )
        path = self.directory / "haproxy.cfg"
        path.write_text(f"{_CONFIGURATION.format(port=self.port)}{servers}\n")
        return ("haproxy", "-f", str(path), "-db")


_CONFIGURATION = """\
global
  maxconn 4096
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  option redispatch
  retries 2
frontend bridge
  bind 127.0.0.1:{port}
  default_backend nodes
backend nodes
  balance roundrobin
  option httpchk GET /readyz
"""

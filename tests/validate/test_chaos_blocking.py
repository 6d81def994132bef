"""The chaos proxy in a thread, for tests without an event loop."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from catenary.errors import UsageError
from catenary.validate.chaos import Action, BlockingChaosProxy, Faults, Script, Step
from tests.serving.sockets import open_files


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
        except ConnectionError:
            """The network did it."""


@pytest.fixture
def port() -> Iterator[int]:
    """A server in threads that sends everything back."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def asked(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return sock.recv(65536)


def test_a_network_for_code_without_a_loop(port: int) -> None:
    """It delays, stands still, goes on and cuts; calls return when it is done."""
    with BlockingChaosProxy(port, faults=Faults(delay=0.05), seed=7) as network:
        with connect(network.port) as sock:
            began = time.perf_counter()
            assert asked(sock, b"hello") == b"hello"
            assert time.perf_counter() - began >= 0.1
            network.apply(Faults())
            assert network.faults == Faults()
            network.apply(Action.STALL)
            sock.sendall(b"meanwhile")
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.recv(100)
            sock.settimeout(5)
            network.apply(Action.GO_ON)
            assert sock.recv(100) == b"meanwhile"
            network.apply(Action.RESET)
            with pytest.raises(ConnectionResetError):
                sock.recv(100)
        assert network.url_for(f"http://127.0.0.1:{port}/") == f"http://127.0.0.1:{network.port}/"
        told = [entry.what for entry in network.journal.entries if entry.connection is None]
        assert told == ["faults", Action.STALL, Action.GO_ON, Action.RESET]


def test_a_script_plays_meanwhile(port: int) -> None:
    script = Script((Step(0.1, Action.REFUSE), Step(0.2, Action.ACCEPT)), 0.3)
    with BlockingChaosProxy(port) as network:
        playing = network.play(script)
        assert not playing.done()
        playing.result(timeout=5)
        assert [entry.what for entry in network.journal.entries] == ["refuse", "accept"]
        last = network.play(Script((Step(60.0, Action.CUT),)))
    last.result(timeout=5)


def test_it_leaves_nothing_behind(port: int) -> None:
    threads, files = threading.active_count(), open_files()
    for _ in range(5):
        with BlockingChaosProxy(port) as network, connect(network.port) as sock:
            assert asked(sock, b"hello") == b"hello"
            assert network.connection_count == 1
    wait_until(lambda: threading.active_count() == threads and open_files() == files)
    assert network.connection_count == 0


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_mistakes_are_named(port: int) -> None:
    network = BlockingChaosProxy(port)
    with pytest.raises(UsageError, match="not open"):
        network.apply(Action.CUT)
    with network:
        with pytest.raises(UsageError, match="opened once"), network:
            """Never here."""
        with pytest.raises(UsageError, match="another port"):
            network.url_for("http://127.0.0.1:1/")
    with pytest.raises(UsageError, match="not open"):
        network.play(Script())
    with BlockingChaosProxy("192.0.2.1:80") as far, pytest.raises(UsageError, match="loopback"):
        far.apply(Action.CHANGE_ADDRESS)

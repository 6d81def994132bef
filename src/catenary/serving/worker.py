"""One of several processes that serve a port, as it sees itself."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import msgspec

from catenary.errors import ConfigError
from catenary.serving.asgi import BridgeApp
from catenary.serving.server import BridgeServer, config_for, serve_on

MISCONFIGURED = 2


class Listens(msgspec.Struct, frozen=True, tag="listens"):
    """A worker serves its listeners; ``survives`` is what its log says of an event."""

    survives: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A worker ends, because what it was configured with cannot work."""

    problem: str


Word = Listens | Failed
"""What a worker says to its parent. The parent says only one thing: leave."""

encode = msgspec.json.Encoder().encode
decode: Callable[[bytes], Word] = msgspec.json.Decoder(Word).decode


class WorkerServer(BridgeServer):
    """
    A server that leaves in order when its parent says so, or is gone.

    A SIGTERM of its own does the same, and the parent then starts another. A
    Ctrl+C reaches every process of a terminal; that one is the parent's to take.
    """

    def __init__(self, app: BridgeApp, link: Connection) -> None:
        super().__init__(config_for(app), app.factory, on_started=self._tell)
        self._link = link

    def _tell(self, url: str) -> None:
        threading.Thread(target=self._hear, name="catenary-parent", daemon=True).start()
        say(self._link, Listens(self.factory.log.survives))

    def _hear(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            self._link.recv_bytes()
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the end in order alone."""
        signal.signal(signal.SIGTERM, self.handle_exit)
        yield


def say(link: Connection, word: Word) -> None:
    """Say something to the parent; one that is gone need not hear it."""
    with contextlib.suppress(OSError):
        link.send_bytes(encode(word))


def work(
    app_for: Callable[[], BridgeApp], link: Connection, listeners: list[socket.socket]
) -> None:
    """
    Serve as one of several processes, until the parent says so or is gone.

    ``app_for`` makes the application, in this process. What is misconfigured
    is the parent's to show.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        serve_on(listeners, WorkerServer(app_for(), link))
    except ConfigError as error:
        say(link, Failed(str(error)))
        sys.exit(MISCONFIGURED)

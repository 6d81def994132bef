"""Reading a SQLite log: connections that cannot write, and threads for them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from catenary.errors import LogUnavailable
from catenary.eventlog.sqlite.schema import errors_of, open_reader

THREADS = 3

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """A few read-only connections to an open file, made when they are needed."""

    def __init__(self, path: Path, threads: Executor) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._is_closed = False
        self._threads = threads

    async def run(
        self,
        read: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """
        Read on another thread; no loop waits.

        Raises:
            LogUnavailable: The file cannot be read now, or was closed.
        """
        try:
            future = self._threads.submit(lambda: self.run_here(read, *args, **kwargs))
        except RuntimeError:
            raise LogUnavailable(f"{self._path} was closed meanwhile") from None
        return await asyncio.wrap_future(future)

    def run_here(
        self,
        read: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Read on this thread. Raises as ``run``."""
        with errors_of(self._path):
            connection = self._take()
            try:
                return read(connection, *args, **kwargs)
            finally:
                self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._is_closed:
                raise LogUnavailable(f"{self._path} was closed meanwhile")
            if self._idle:
                return self._idle.pop()
        return open_reader(self._path)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < THREADS:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Let what is being read end, then close every connection."""
        self._threads.shutdown()
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

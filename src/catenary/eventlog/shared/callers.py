"""Threads that ask a shared store for others, so that no loop and no append waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

# By its module: the package's own attribute is made too late for a process that is ending.
from concurrent.futures.thread import ThreadPoolExecutor
from typing import Concatenate, Generic, ParamSpec, Protocol, TypeVar

from catenary.errors import LogUnavailable

THREADS = 4

P = ParamSpec("P")
T = TypeVar("T")


class Connections(Protocol):
    """One thread's connections to a store."""

    def rested(self) -> None:
        """Before the next use after a while: drop what has been closed meanwhile."""
        ...

    def close(self) -> None:
        """Close them."""
        ...


S = TypeVar("S", bound=Connections)


class Callers(Generic[S]):
    """
    A few connections beside the writer's, opened when they are needed.

    ``make`` makes the connections of one thread; ``shown`` names the store.
    """

    def __init__(self, make: Callable[[], S], shown: str) -> None:
        self._make = make
        self._shown = shown
        self._lock = threading.Lock()
        self._idle: list[S] = []
        self._is_closed = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="catenary-caller")

    async def run(
        self, ask: Callable[Concatenate[S, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """
        Ask on another thread; no loop waits.

        Raises:
            LogUnavailable: The store cannot now, or the log was closed.
        """
        try:
            future = self._threads.submit(lambda: self.run_here(ask, *args, **kwargs))
        except RuntimeError:
            raise self._closed() from None
        return await asyncio.wrap_future(future)

    def run_later(self, ask: Callable[[S], None]) -> None:
        """Ask on another thread, for nobody; ``ask`` deals with its own failures."""
        try:
            self._threads.submit(lambda: self.run_here(ask))
        except RuntimeError:
            # Closed: there is nobody left to tell.
            return

    def run_here(self, ask: Callable[Concatenate[S, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask on this thread. Raises as ``run``."""
        store = self._take()
        store.rested()
        try:
            return ask(store, *args, **kwargs)
        finally:
            self._give_back(store)

    def _take(self) -> S:
        with self._lock:
            if self._is_closed:
                raise self._closed()
            if self._idle:
                return self._idle.pop()
        return self._make()

    def _give_back(self, store: S) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < THREADS:
                self._idle.append(store)
                return
        store.close()

    def _closed(self) -> LogUnavailable:
        return LogUnavailable(f"{self._shown} was closed meanwhile")

    def close(self) -> None:
        """Let what is being asked end, then close every connection."""
        self._threads.shutdown()
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for store in idle:
            store.close()

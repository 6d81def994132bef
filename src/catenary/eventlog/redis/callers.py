"""Threads that ask Redis for others, so that no loop and no append waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

# By its module: the package's own attribute is made too late for a process that is ending.
from concurrent.futures.thread import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from catenary.errors import LogUnavailable
from catenary.eventlog.redis.address import Address
from catenary.eventlog.redis.scripts import Rules
from catenary.eventlog.redis.store import Store

THREADS = 4

P = ParamSpec("P")
T = TypeVar("T")


class Callers:
    """A few connections beside the writer's, opened when they are needed."""

    def __init__(self, address: Address, rules: Rules) -> None:
        self._address = address
        self._rules = rules
        self._lock = threading.Lock()
        self._idle: list[Store] = []
        self._is_closed = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="catenary-caller")

    async def run(
        self, ask: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs
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

    def run_later(self, ask: Callable[[Store], None]) -> None:
        """Ask on another thread, for nobody; ``ask`` deals with its own failures."""
        try:
            self._threads.submit(lambda: self.run_here(ask))
        except RuntimeError:
            # Closed: there is nobody left to tell.
            return

    def run_here(
        self, ask: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Ask on this thread. Raises as ``run``."""
        store = self._take()
        store.rested()
        try:
            return ask(store, *args, **kwargs)
        finally:
            self._give_back(store)

    def _take(self) -> Store:
        with self._lock:
            if self._is_closed:
                raise self._closed()
            if self._idle:
                return self._idle.pop()
        return Store(self._address, self._rules)

    def _give_back(self, store: Store) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < THREADS:
                self._idle.append(store)
                return
        store.close()

    def _closed(self) -> LogUnavailable:
        return LogUnavailable(f"{self._address.shown} was closed meanwhile")

    def close(self) -> None:
        """Let what is being asked end, then close every connection."""
        self._threads.shutdown()
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for store in idle:
            store.close()

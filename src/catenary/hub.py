"""
The hub of one event loop: which cursors are ready, and their turn.

A commit wakes the subscription of its stream; the hub gives each ready cursor
its frames of the turn in one write. From other threads only wake-ups travel,
one for many events.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from operator import itemgetter
from typing import Protocol

from catenary.eventlog.base import EventLog
from catenary.eventlog.stream import Stream
from catenary.limits import Limits
from catenary.observe.counters import Counters
from catenary.surroundings import HERE, Surroundings

logger = logging.getLogger("catenary.connection")

TURN_SECONDS = 0.001
"""A turn yields to the loop after this long."""


class Ready(Protocol):
    """What can be given a turn."""

    def pump(self) -> None: ...

    def failed(self, error: Exception) -> None:
        """Take note of what ``pump`` raised."""
        ...


class Subscription:
    """The connections of one loop that read one stream; the stream's watcher."""

    __slots__ = ("_hub", "connections", "is_awake", "watching", "woken_at")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.connections: tuple[Ready, ...] = ()
        self.watching: asyncio.Future[Stream] | None = None
        self.is_awake = False
        self.woken_at = 0.0

    def wake(self) -> None:
        """Ask for a turn. Called within a commit, on any thread."""
        self.is_awake = True
        self.woken_at = self._hub.stopwatch()
        self._hub.make_ready(self)

    def pump(self) -> None:
        """Give every connection its turn."""
        # Cleared before the tail is read: a commit after this line wakes again.
        self.is_awake = False
        for connection in self.connections:
            try:
                connection.pump()
            except Exception as error:
                connection.failed(error)
        hub = self._hub
        hub.counters.delivery_seconds.observe(hub.stopwatch() - self.woken_at)

    def failed(self, error: Exception) -> None:
        """Say so: what the connections' own turns raise does not come here."""
        logger.error("a turn failed", exc_info=error)


class Hub:
    """The ready cursors of one loop. All but ``make_ready`` is for the loop's thread."""

    def __init__(
        self,
        log: EventLog,
        counters: Counters,
        limits: Limits,
        surroundings: Surroundings = HERE,
    ) -> None:
        self.log = log
        self.counters = counters
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.uniform = surroundings.uniform
        self.stopwatch = surroundings.stopwatch
        self.replay_slots = asyncio.Semaphore(limits.replaying)
        self._thread = threading.get_ident()
        self._ready: deque[Ready] = deque()
        self._is_scheduled = False
        self._subscriptions: dict[str, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def make_ready(self, ready: Ready) -> None:
        """Give something its turn soon. Thread-safe."""
        self._ready.append(ready)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._schedule()

    def _schedule(self) -> None:
        is_here = threading.get_ident() == self._thread
        try:
            (self.loop.call_soon if is_here else self.loop.call_soon_threadsafe)(self._turn)
        except RuntimeError:
            # The loop has closed, and with it every connection of this hub.
            self._ready.clear()

    def _turn(self) -> None:
        self._is_scheduled = False
        ready = self._ready
        end = self.stopwatch() + TURN_SECONDS
        while ready:
            item = ready.popleft()
            try:
                item.pump()
            except Exception as error:
                item.failed(error)
            if ready and self.stopwatch() > end:
                if not self._is_scheduled:
                    self._is_scheduled = True
                    self.loop.call_soon(self._turn)
                return

    async def subscribe(self, log_id: str, connection: Ready) -> Stream:
        """Add a connection to the readers of a log; its head is known when this returns."""
        subscription = self._subscriptions.get(log_id)
        if subscription is None:
            subscription = self._subscriptions[log_id] = Subscription(self)
            subscription.watching = asyncio.ensure_future(self.log.watch(log_id, subscription))
        subscription.connections = (*subscription.connections, connection)
        assert subscription.watching is not None
        stream = await asyncio.shield(subscription.watching)
        if not subscription.connections:
            self.log.unwatch(stream, subscription)
        return stream

    def unsubscribe(self, log_id: str, connection: Ready) -> None:
        """Take a connection away; with the last one the stream is no longer watched."""
        subscription = self._subscriptions.get(log_id)
        if subscription is None or connection not in subscription.connections:
            return
        subscription.connections = tuple(
            other for other in subscription.connections if other is not connection
        )
        if subscription.connections:
            return
        del self._subscriptions[log_id]
        watching = subscription.watching
        if watching is not None:
            # At once where it is done; else whoever began it may be gone when it is.
            watching.add_done_callback(lambda _: self._unwatch(subscription))
            self._unwatch(subscription)

    def _unwatch(self, subscription: Subscription) -> None:
        watching = subscription.watching
        if watching is not None and _has_result(watching):
            self.log.unwatch(watching.result(), subscription)

    def leave(self) -> None:
        """Watch nothing more: the loop has closed, and its connections are gone with it."""
        for subscription in self._subscriptions.values():
            self._unwatch(subscription)
        self._subscriptions.clear()

    def trim_tails(self) -> None:
        """Bring the tails read here under their limit: those that were quiet longest go first."""
        held = [
            (subscription.woken_at, watching.result())
            for subscription in self._subscriptions.values()
            if (watching := subscription.watching) is not None and _has_result(watching)
        ]
        excess = sum(stream.tail.bytes_held for _, stream in held if stream.tail)
        excess -= self.limits.tail_bytes
        if excess <= 0:
            return
        for _, stream in sorted(held, key=itemgetter(0)):
            if excess <= 0:
                return
            excess -= stream.tail.bytes_held if stream.tail is not None else 0
            self.log.drop_tail(stream)

    def start(self, task: asyncio.Task[None]) -> None:
        """Keep a task of a connection alive until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _has_result(future: asyncio.Future[Stream]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None

"""
Live: hearing what is published for the logs that have a reader here, and for this process.

A thread listens on a connection of its own, and connects again whatever
happens. What is published meanwhile is missed; whoever is told that a channel
is heard again compares what it has with the log.
"""

from __future__ import annotations

import abc
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from random import SystemRandom
from typing import Any, Generic, Protocol, TypeVar

from catenary.errors import CatenaryError, LogUnavailable
from catenary.eventlog.shared.threads import start_unless_ending

PING_SECONDS = 5.0
SILENCE_SECONDS = 15.0
"""After so long without a byte, not even the answer to a ping, a connection is given up."""

BACKOFF_LIMIT = 1.0
_random = SystemRandom()
logger = logging.getLogger("catenary.eventlog")


class Connection(Protocol):
    """A connection to one server; ``where`` names it."""

    where: str

    @property
    def socket(self) -> Any:
        """Its socket, for a thread that waits for what is published."""


class SharedListener(abc.ABC):
    """
    The channels that this process listens on. A subclass brings the ears, and what they want.

    Args:
        shown: The servers without their password.
        heard_again: Called with the channels that are heard from now on, after
            they were not; the first time too.
    """

    def __init__(self, shown: str, heard_again: Callable[[list[bytes]], None]) -> None:
        self.shown = shown
        self.is_closed = False
        self._heard_again = heard_again
        self._lock = threading.Lock()
        self._waiting: dict[bytes, Future[None]] = {}
        """Who waits for a channel that was not heard when they asked."""

    @abc.abstractmethod
    def _all_ears(self) -> Sequence[Ear[Any, Any]]:
        """Return the ears."""

    def _wait_for(self, channel: bytes) -> Future[None]:
        """Return what is done once a channel is heard; under the lock."""
        future = self._waiting.get(channel)
        if future is None:
            future = self._waiting[channel] = Future()
            future.set_running_or_notify_cancel()
        return future

    @abc.abstractmethod
    def start(self) -> None:
        """Begin to listen."""

    @abc.abstractmethod
    def leave(self, channel: bytes) -> None:
        """Listen on a channel no longer."""

    def wake(self) -> None:
        """Let the ears look at what is wanted."""
        for ear in self._all_ears():
            ear.wake()

    def close(self) -> None:
        """Stop listening, and wait for the threads."""
        self.is_closed = True
        self.wake()
        for ear in self._all_ears():
            ear.join()

    # For the ears

    def confirm(self, channels: list[bytes]) -> None:
        """These are heard from now on."""
        self._heard_again(channels)
        self.settle(channels)

    def settle(self, channels: Collection[bytes]) -> None:
        """Tell those who wait for channels that are heard."""
        with self._lock:
            futures = [self._waiting.pop(channel, None) for channel in channels]
        for future in futures:
            if future is not None:
                future.set_result(None)


N = TypeVar("N", bound=Connection)
H = TypeVar("H", bound=SharedListener)


class Ear(abc.ABC, Generic[N, H]):
    """One thread that listens on one connection at a time. A subclass speaks with the server."""

    def __init__(self, listener: H) -> None:
        self._listener = listener
        self._bell, self._rope = socket.socketpair()
        self._bell.settimeout(0)
        self._rope.settimeout(0)
        self._thread = threading.Thread(target=self._live, name="catenary-live", daemon=True)

    # The server

    @abc.abstractmethod
    def _listen(self) -> None:
        """Connect, and follow the connection. Raises ``CatenaryError``."""

    @abc.abstractmethod
    def _ask(self, link: N) -> None:
        """Tell the server what is wanted now, and what no longer is."""

    @abc.abstractmethod
    def _read(self, link: N) -> None:
        """Hear what has come."""

    @abc.abstractmethod
    def _ping(self, link: N) -> None:
        """Make the server say something."""

    @property
    def _is_over(self) -> bool:
        """Whether there is nothing to listen to any more."""
        return self._listener.is_closed

    # The thread

    def start(self) -> None:
        """Start the thread."""
        start_unless_ending(self._thread)

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread.ident is not None:
            self._thread.join()

    def wake(self) -> None:
        """Let the thread look at what is wanted."""
        try:
            self._rope.send(b"!")
        except (BlockingIOError, OSError):
            # Full, so that it wakes anyway; or closed, so that nobody is there.
            return

    def _live(self) -> None:
        shown = self._listener.shown
        attempt = 0
        while not self._is_over:
            began = time.monotonic()
            try:
                self._listen()
            except CatenaryError as error:
                attempt = 0 if time.monotonic() - began > 1 else attempt + 1
                # Once for each outage: that it lasts is the writer's to say.
                level = logging.DEBUG if attempt > 1 else logging.WARNING
                logger.log(level, "live events of %s: %s", shown, error)
            except Exception:
                attempt += 1
                logger.exception("live events of %s: connecting again", shown)
            if not self._is_over:
                self._sleep(_random.uniform(0, min(BACKOFF_LIMIT, 0.02 * 2 ** min(attempt, 6))))
        self._bell.close()
        self._rope.close()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._is_over:
            with selectors.DefaultSelector() as selector:
                selector.register(self._bell, selectors.EVENT_READ)
                selector.select(left)
            self._ring_off()

    def _ring_off(self) -> None:
        try:
            while self._bell.recv(4096):
                pass
        except BlockingIOError:
            return

    # Connected

    def _follow(self, link: N) -> None:
        """Hear what a connection brings, until it is lost or nothing is wanted any more."""
        self._ask(link)
        with selectors.DefaultSelector() as selector:
            selector.register(link.socket, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            self._follow_with(selector, link)

    def _follow_with(self, selector: selectors.BaseSelector, link: N) -> None:
        source = link.socket
        heard_at = said_at = time.monotonic()
        while not self._is_over:
            ready = [key.fileobj for key, _ in selector.select(1.0)]
            now = time.monotonic()
            if self._bell in ready:
                self._ring_off()
                self._ask(link)
            if source in ready:
                heard_at = now
                self._read(link)
            if now - said_at > PING_SECONDS:
                said_at = now
                self._ping(link)
            if now - heard_at > SILENCE_SECONDS:
                raise LogUnavailable(f"{link.where} has said nothing for {SILENCE_SECONDS:.0f} s")

"""
Live: hearing what is published for the logs that have a reader here.

A thread for each server listens on a connection of its own, and connects again
whatever happens. What is published meanwhile is missed; whoever is told that a
channel is heard again compares what it has with the log.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future
from random import SystemRandom
from typing import Any

from hiredis import Reader

from catenary.errors import CatenaryError, LogUnavailable
from catenary.eventlog.redis.address import Address
from catenary.eventlog.redis.link import Link
from catenary.eventlog.redis.scripts import Rules
from catenary.eventlog.redis.store import Servers
from catenary.eventlog.shared.address import Server
from catenary.eventlog.shared.threads import start_unless_ending

PING_SECONDS = 5.0
SILENCE_SECONDS = 15.0
"""After so long without a byte, not even the answer to a ping, a connection is given up."""

BACKOFF_LIMIT = 1.0
_AT_ONCE = 200
_random = SystemRandom()
logger = logging.getLogger("catenary.eventlog")


class Listener:
    """
    The channels that this process listens on.

    Args:
        hear: Called with a channel and what was published on it, in order.
        heard_again: Called with the channels that are heard from now on, after
            they were not; the first time too.
        always: Channels that are listened on for ever; no log's.
    """

    def __init__(
        self,
        address: Address,
        rules: Rules,
        *,
        hear: Callable[[bytes, bytes], None],
        heard_again: Callable[[list[bytes]], None],
        always: Collection[bytes],
    ) -> None:
        self.address = address
        self.rules = rules
        self.servers = Servers(address)
        self.hear = hear
        self.heard_again = heard_again
        self.always = frozenset(always)
        self._lock = threading.Lock()
        self._wanted: dict[bytes, int] = {}
        self._waiting: dict[bytes, Future[None]] = {}
        """Who waits for a channel that was not heard when they asked."""
        self._ears: dict[Server | None, Ear] = {}
        self.is_closed = False

    def listen(self, channel: bytes, bucket: int) -> Future[None]:
        """Listen on a channel; the result is there once it is heard."""
        with self._lock:
            future = self._waiting.get(channel)
            if future is None:
                future = self._waiting[channel] = Future()
                future.set_running_or_notify_cancel()
            self._wanted[channel] = bucket
        self.wake()
        return future

    def leave(self, channel: bytes) -> None:
        """Listen on a channel no longer."""
        with self._lock:
            self._wanted.pop(channel, None)
        self.wake()

    def wake(self) -> None:
        """Let the threads look at what is wanted."""
        for ear in list(self._ears.values()):
            ear.wake()

    def start(self) -> None:
        """Begin to listen."""
        with self._lock:
            self._grow([None])

    def _grow(self, servers: Collection[Server | None]) -> None:
        for server in servers:
            if server not in self._ears:
                ear = self._ears[server] = Ear(self, server)
                ear.start()

    def close(self) -> None:
        """Stop listening, and wait for the threads."""
        self.is_closed = True
        self.wake()
        for ear in list(self._ears.values()):
            ear.join()

    # For the ears

    def wanted_of(self, server: Server | None, *, is_sharded: bool) -> set[bytes]:
        """Return the channels that the ear of a server is to listen on."""
        with self._lock:
            wanted = dict(self._wanted)
        if not self.servers.is_spread or (self.servers.is_cluster and not is_sharded):
            # One server, or a cluster in which publishing reaches every node: one ear hears all.
            return set(wanted) if server is None else set()
        first, *others = self.servers.all()
        with self._lock:
            self._grow(others)
        own = first if server is None else server
        return {channel for channel, bucket in wanted.items() if self.servers.of(bucket) == own}

    def server_of(self, server: Server | None) -> Server:
        """Return where an ear connects to."""
        return self.servers.all()[0] if server is None else server

    def is_needed(self, server: Server | None) -> bool:
        """Whether the ear of a server still has one."""
        return server is None or server in self.servers.all()

    def drop(self, server: Server | None) -> None:
        """The server of an ear is gone."""
        with self._lock:
            self._ears.pop(server, None)

    def confirm(self, channels: list[bytes]) -> None:
        """These are heard from now on."""
        self.heard_again(channels)
        self.settle(channels)

    def settle(self, channels: Collection[bytes]) -> None:
        """Tell those who wait for channels that are heard."""
        with self._lock:
            futures = [self._waiting.pop(channel, None) for channel in channels]
        for future in futures:
            if future is not None:
                future.set_result(None)

    def waited_for(self) -> list[bytes]:
        """Return the channels that somebody waits for."""
        with self._lock:
            return list(self._waiting)


class Ear:
    """One thread's connection to one server; to the first one if that is None."""

    def __init__(self, listener: Listener, server: Server | None) -> None:
        self._listener = listener
        self._server = server
        self._bell, self._rope = socket.socketpair()
        self._bell.settimeout(0)
        self._rope.settimeout(0)
        self._thread = threading.Thread(target=self._live, name="catenary-live", daemon=True)
        self._asked: set[bytes] = set()
        self._heard: set[bytes] = set()
        self._pending: Counter[bytes] = Counter()

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
        listener = self._listener
        attempt = 0
        while not listener.is_closed:
            began = time.monotonic()
            try:
                if not listener.is_needed(self._server):
                    break
                self._listen()
            except CatenaryError as error:
                listener.servers.forget()
                attempt = 0 if time.monotonic() - began > 1 else attempt + 1
                # Once for each outage: that it lasts is the writer's to say.
                level = logging.DEBUG if attempt > 1 else logging.WARNING
                logger.log(level, "live events of %s: %s", listener.address.shown, error)
            except Exception:
                attempt += 1
                logger.exception("live events of %s: connecting again", listener.address.shown)
            self._lose()
            if not listener.is_closed:
                self._sleep(_random.uniform(0, min(BACKOFF_LIMIT, 0.02 * 2 ** min(attempt, 6))))
        listener.drop(self._server)
        self._bell.close()
        self._rope.close()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._listener.is_closed:
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

    def _lose(self) -> None:
        self._heard.clear()
        self._asked.clear()
        self._pending.clear()

    # Connected

    def _listen(self) -> None:
        listener = self._listener
        server = listener.server_of(self._server)
        link = Link(listener.address, server, listener.rules)
        try:
            if self._server is None:
                link.say("SUBSCRIBE", *listener.always)
            self._follow(link)
        finally:
            link.close()

    def _follow(self, link: Link) -> None:
        self._ask(link)
        with selectors.DefaultSelector() as selector:
            selector.register(link.socket, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            self._follow_with(selector, link)

    def _follow_with(self, selector: selectors.BaseSelector, link: Link) -> None:
        reader = Reader()
        is_tls = hasattr(link.socket, "pending")
        heard_at = said_at = time.monotonic()
        while not self._listener.is_closed:
            ready = [key.fileobj for key, _ in selector.select(1.0)]
            now = time.monotonic()
            if self._bell in ready:
                self._ring_off()
                self._ask(link)
            if link.socket in ready:
                heard_at = now
                self._read(link, reader)
                while is_tls and link.socket.pending():
                    self._read(link, reader)
            if now - said_at > PING_SECONDS:
                said_at = now
                link.say("PING")
            if now - heard_at > SILENCE_SECONDS:
                raise LogUnavailable(f"{link.where} has said nothing for {SILENCE_SECONDS:.0f} s")

    def _ask(self, link: Link) -> None:
        """Tell the server what is wanted now, and what no longer is."""
        wanted = self._listener.wanted_of(self._server, is_sharded=link.is_sharded)
        s = "S" if link.is_sharded else ""
        gone = self._asked - wanted
        new = wanted - self._asked
        by_slot = self._listener.servers.is_cluster and link.is_sharded
        for word, channels in ((f"{s}UNSUBSCRIBE", gone), (f"{s}SUBSCRIBE", new)):
            # Channels of several slots cannot be named in one command.
            step = 1 if by_slot else _AT_ONCE
            listed = list(channels)
            for begin in range(0, len(listed), step):
                link.say(word, *listed[begin : begin + step])
        self._asked = wanted
        self._heard -= gone
        self._pending.update(new)
        # Left and wanted again before this thread looked: it was heard all the time.
        self._listener.settle(self._heard.intersection(self._listener.waited_for()))

    def _read(self, link: Link, reader: Any) -> None:
        try:
            data = link.socket.recv(256 * 1024)
        except OSError as error:
            raise LogUnavailable(f"{link.where}: {error}") from None
        if not data:
            raise LogUnavailable(f"{link.where} closed the connection")
        reader.feed(data)
        confirmed: list[bytes] = []
        while (told := reader.gets()) is not False:
            if isinstance(told, Exception):
                raise LogUnavailable(f"{link.where}: {told}")
            self._take(told, confirmed)
        if confirmed:
            self._heard.update(confirmed)
            self._listener.confirm(confirmed)

    def _take(self, told: list[Any], confirmed: list[bytes]) -> None:
        kind, channel = told[0], told[1]
        if kind in (b"message", b"smessage"):
            self._listener.hear(channel, told[2])
        elif kind in (b"subscribe", b"ssubscribe") and channel not in self._listener.always:
            # Asked twice, with a leave between: only the last answer counts.
            self._pending[channel] -= 1
            if not self._pending[channel]:
                del self._pending[channel]
                if channel in self._asked:
                    confirmed.append(channel)
        elif kind == b"sunsubscribe" and channel in self._asked and not self._pending[channel]:
            raise LogUnavailable(f"the channel {os.fsdecode(channel)} is on another node now")

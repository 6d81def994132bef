"""Live: hearing what is published on channels, by a thread for each server."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

from hiredis import Reader

from catenary.errors import CatenaryError, LogUnavailable
from catenary.eventlog.redis.address import Address
from catenary.eventlog.redis.link import Link
from catenary.eventlog.redis.scripts import Rules
from catenary.eventlog.redis.store import Servers
from catenary.eventlog.shared.address import Server
from catenary.eventlog.shared.live import Ear, SharedListener

_AT_ONCE = 200


class Listener(SharedListener):
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
        super().__init__(address.shown, heard_again)
        self.address = address
        self.rules = rules
        self.servers = Servers(address)
        self.hear = hear
        self.always = frozenset(always)
        self._wanted: dict[bytes, int] = {}
        self._ears: dict[Server | None, ServerEar] = {}

    def _all_ears(self) -> list[ServerEar]:
        return list(self._ears.values())

    def listen(self, channel: bytes, bucket: int) -> Future[None]:
        """Listen on a channel; the result is there once it is heard."""
        with self._lock:
            future = self._wait_for(channel)
            self._wanted[channel] = bucket
        self.wake()
        return future

    def leave(self, channel: bytes) -> None:
        """Listen on a channel no longer."""
        with self._lock:
            self._wanted.pop(channel, None)
        self.wake()

    def start(self) -> None:
        """Begin to listen."""
        with self._lock:
            self._grow([None])

    def _grow(self, servers: Collection[Server | None]) -> None:
        for server in servers:
            if server not in self._ears:
                ear = self._ears[server] = ServerEar(self, server)
                ear.start()

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

    def waited_for(self) -> list[bytes]:
        """Return the channels that somebody waits for."""
        with self._lock:
            return list(self._waiting)


class ServerEar(Ear[Link, Listener]):
    """The thread that listens to one server; to the first one if that is None."""

    def __init__(self, listener: Listener, server: Server | None) -> None:
        super().__init__(listener)
        self._server = server
        self._is_gone = False
        # Of the connection that is open:
        self._reader = Reader()
        self._is_tls = False
        self._asked: set[bytes] = set()
        self._heard: set[bytes] = set()
        self._pending: Counter[bytes] = Counter()

    @property
    def _is_over(self) -> bool:
        return self._is_gone or self._listener.is_closed

    def _live(self) -> None:
        super()._live()
        self._listener.drop(self._server)

    def _listen(self) -> None:
        listener = self._listener
        try:
            if listener.is_needed(self._server):
                self._listen_to(listener.server_of(self._server))
            else:
                self._is_gone = True
        except CatenaryError:
            # What this ear listened to may be another's now.
            listener.servers.forget()
            listener.wake()
            raise
        finally:
            self._heard.clear()
            self._asked.clear()
            self._pending.clear()

    def _listen_to(self, server: Server) -> None:
        link = Link(self._listener.address, server, self._listener.rules)
        self._reader = Reader()
        self._is_tls = hasattr(link.socket, "pending")
        try:
            if self._server is None:
                link.say("SUBSCRIBE", *self._listener.always)
            self._follow(link)
        finally:
            link.close()

    def _ping(self, link: Link) -> None:
        link.say("PING")

    def _ask(self, link: Link) -> None:
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

    def _read(self, link: Link) -> None:
        self._read_some(link)
        while self._is_tls and link.socket.pending():
            # Decrypted already, so that the socket says nothing of it.
            self._read_some(link)

    def _read_some(self, link: Link) -> None:
        reader = self._reader
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

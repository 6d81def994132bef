"""
Live: hearing what is published for the logs that have a reader here, and for this process.

One thread listens on a connection of its own, and connects again whatever
happens. What is published meanwhile is missed; whoever is told that a subject
is heard again compares what it has with the log.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from random import SystemRandom

from catenary.errors import CatenaryError, LogUnavailable
from catenary.eventlog.nats import protocol
from catenary.eventlog.nats.address import Address
from catenary.eventlog.nats.link import Link
from catenary.eventlog.nats.protocol import Message
from catenary.eventlog.nats.store import Servers, connect
from catenary.eventlog.shared.threads import start_unless_ending

PING_SECONDS = 5.0
SILENCE_SECONDS = 15.0
"""After so long without a byte, not even the answer to a ping, a connection is given up."""

BACKOFF_LIMIT = 1.0
_FIRST_SID = 10
_random = SystemRandom()
logger = logging.getLogger("catenary.eventlog")


class Listener:
    """
    The subjects that this process listens on.

    Args:
        hear: Called with what was published, in order; what it returns is sent as
            the answer, if one was asked for.
        heard_again: Called with the subjects that are heard from now on, after
            they were not; the first time too.
        always: Subjects that are listened on for ever; no log's.
    """

    def __init__(
        self,
        address: Address,
        servers: Servers,
        *,
        hear: Callable[[Message], bytes | None],
        heard_again: Callable[[list[bytes]], None],
        always: Collection[bytes],
    ) -> None:
        self._address = address
        self._servers = servers
        self._hear = hear
        self._heard_again = heard_again
        self._lock = threading.Lock()
        self._wanted = set(always)
        self._changed: set[bytes] = set()
        """What was wanted, or is no longer, since the thread last looked."""
        self._waiting: dict[bytes, Future[None]] = {}
        """Who waits for a subject that was not heard when they asked."""
        self._is_closed = False
        self._bell, self._rope = socket.socketpair()
        self._bell.settimeout(0)
        self._rope.settimeout(0)
        self._thread = threading.Thread(target=self._live, name="catenary-live", daemon=True)
        # Of the connection that is open:
        self._sids: dict[bytes, int] = {}
        self._next_sid = _FIRST_SID
        self._asked: list[list[bytes]] = []
        """The subjects that each ping that has no answer yet will confirm."""

    def listen(self, subject: bytes) -> Future[None]:
        """Listen on a subject; the result is there once it is heard."""
        with self._lock:
            future = self._waiting.get(subject)
            if future is None:
                future = self._waiting[subject] = Future()
                future.set_running_or_notify_cancel()
            self._wanted.add(subject)
            self._changed.add(subject)
        self._wake()
        return future

    def leave(self, subject: bytes) -> None:
        """Listen on a subject no longer."""
        with self._lock:
            self._wanted.discard(subject)
            self._changed.add(subject)
        self._wake()

    def start(self) -> None:
        """Begin to listen."""
        start_unless_ending(self._thread)

    def close(self) -> None:
        """Stop listening, and wait for the thread."""
        self._is_closed = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join()

    def _wake(self) -> None:
        try:
            self._rope.send(b"!")
        except (BlockingIOError, OSError):
            # Full, so that it wakes anyway; or closed, so that nobody is there.
            return

    # The thread

    def _live(self) -> None:
        attempt = 0
        while not self._is_closed:
            began = time.monotonic()
            try:
                self._listen()
            except CatenaryError as error:
                attempt = 0 if time.monotonic() - began > 1 else attempt + 1
                # Once for each outage: that it lasts is the writer's to say.
                level = logging.DEBUG if attempt > 1 else logging.WARNING
                logger.log(level, "live events of %s: %s", self._address.shown, error)
            except Exception:
                attempt += 1
                logger.exception("live events of %s: connecting again", self._address.shown)
            if not self._is_closed:
                self._sleep(_random.uniform(0, min(BACKOFF_LIMIT, 0.02 * 2 ** min(attempt, 6))))
        self._bell.close()
        self._rope.close()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._is_closed:
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

    def _listen(self) -> None:
        link = connect(self._address, self._servers)
        self._sids, self._asked = {}, []
        with self._lock:
            self._changed |= self._wanted
        try:
            self._ask(link)
            with selectors.DefaultSelector() as selector:
                selector.register(link.socket, selectors.EVENT_READ)
                selector.register(self._bell, selectors.EVENT_READ)
                self._follow(selector, link)
        except LogUnavailable:
            self._servers.bad(link.server)
            raise
        finally:
            link.close()

    def _follow(self, selector: selectors.BaseSelector, link: Link) -> None:
        heard_at = said_at = time.monotonic()
        while not self._is_closed:
            ready = [key.fileobj for key, _ in selector.select(1.0)]
            now = time.monotonic()
            if self._bell in ready:
                self._ring_off()
                self._ask(link)
            if link.socket in ready:
                heard_at = now
                self._read(link)
            if now - said_at > PING_SECONDS:
                said_at = now
                self._ping(link, [])
            if now - heard_at > SILENCE_SECONDS:
                raise LogUnavailable(f"{link.where} has said nothing for {SILENCE_SECONDS:.0f} s")

    def _ask(self, link: Link) -> None:
        """Tell the server what is wanted now, and what no longer is."""
        with self._lock:
            changed, self._changed = self._changed, set()
            new = [name for name in changed if name in self._wanted and name not in self._sids]
            gone = [name for name in changed if name not in self._wanted and name in self._sids]
            waited_for = list(self._waiting)
        words = [protocol.unsubscribe(self._sids.pop(subject)) for subject in gone]
        for subject in new:
            self._sids[subject] = self._next_sid
            words.append(protocol.subscribe(subject, self._next_sid))
            self._next_sid += 1
        if words:
            link.send(b"".join(words))
        if new:
            self._ping(link, new)
        # Left and wanted again before this thread looked: it was heard all the time.
        asked = {subject for subjects in self._asked for subject in subjects}
        self._settle([name for name in waited_for if name in self._sids and name not in asked])

    def _ping(self, link: Link, subjects: list[bytes]) -> None:
        self._asked.append(subjects)
        link.send(protocol.PING)

    def _read(self, link: Link) -> None:
        for word in link.words():
            if isinstance(word, Message):
                answer = self._hear(word)
                if answer is not None and word.reply:
                    link.send(protocol.publish(word.reply, answer))
            elif word.kind == b"PONG" and self._asked:
                heard = [subject for subject in self._asked.pop(0) if subject in self._sids]
                if heard:
                    self._heard_again(heard)
                    self._settle(heard)

    def _settle(self, subjects: Collection[bytes]) -> None:
        """Tell those who wait for subjects that are heard."""
        with self._lock:
            futures = [self._waiting.pop(subject, None) for subject in subjects]
        for future in futures:
            if future is not None:
                future.set_result(None)

"""Live: hearing what servers of NATS publish on subjects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from concurrent.futures import Future
from typing import NamedTuple

from catenary.errors import LogUnavailable
from catenary.eventlog.nats import protocol
from catenary.eventlog.nats.address import Address
from catenary.eventlog.nats.link import Link
from catenary.eventlog.nats.protocol import Message
from catenary.eventlog.nats.store import Servers, connect
from catenary.eventlog.shared.live import Ear, SharedListener

_FIRST_SID = 10


class Changes(NamedTuple):
    """What is wanted that is not heard, what is no longer, and what is waited for."""

    new: list[bytes]
    gone: list[bytes]
    waited_for: list[bytes]


class Listener(SharedListener):
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
        super().__init__(address.shown, heard_again)
        self.address = address
        self.servers = servers
        self.hear = hear
        self._wanted = set(always)
        self._changed: set[bytes] = set()
        """What was wanted, or is no longer, since the thread last looked."""
        self._ear = SubjectsEar(self)

    def _all_ears(self) -> list[SubjectsEar]:
        return [self._ear]

    def start(self) -> None:
        """Begin to listen."""
        self._ear.start()

    def listen(self, subject: bytes) -> Future[None]:
        """Listen on a subject; the result is there once it is heard."""
        with self._lock:
            future = self._wait_for(subject)
            self._wanted.add(subject)
            self._changed.add(subject)
        self.wake()
        return future

    def leave(self, channel: bytes) -> None:
        """Listen on a subject no longer."""
        with self._lock:
            self._wanted.discard(channel)
            self._changed.add(channel)
        self.wake()

    # For the ear

    def begin_again(self) -> None:
        """Nothing is heard any more: all that is wanted is new."""
        with self._lock:
            self._changed |= self._wanted

    def take_changes(self, heard: Container[bytes]) -> Changes:
        """Return what has changed since it was last asked, beside what is heard."""
        with self._lock:
            changed, self._changed = self._changed, set()
            new = [name for name in changed if name in self._wanted and name not in heard]
            gone = [name for name in changed if name not in self._wanted and name in heard]
            return Changes(new, gone, list(self._waiting))


class SubjectsEar(Ear[Link, Listener]):
    """The thread that listens."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        # Of the connection that is open:
        self._sids: dict[bytes, int] = {}
        self._next_sid = _FIRST_SID
        self._asked: list[list[bytes]] = []
        """The subjects that each ping that has no answer yet will confirm."""

    def _listen(self) -> None:
        listener = self._listener
        link = connect(listener.address, listener.servers)
        self._sids, self._asked = {}, []
        listener.begin_again()
        try:
            self._follow(link)
        except LogUnavailable:
            listener.servers.bad(link.server)
            raise
        finally:
            link.close()

    def _ask(self, link: Link) -> None:
        changes = self._listener.take_changes(self._sids)
        words = [protocol.unsubscribe(self._sids.pop(subject)) for subject in changes.gone]
        for subject in changes.new:
            self._sids[subject] = self._next_sid
            words.append(protocol.subscribe(subject, self._next_sid))
            self._next_sid += 1
        if words:
            link.send(b"".join(words))
        if changes.new:
            self._confirm(link, changes.new)
        # Left and wanted again before this thread looked: it was heard all the time.
        asked = {subject for subjects in self._asked for subject in subjects}
        self._listener.settle(
            [name for name in changes.waited_for if name in self._sids and name not in asked]
        )

    def _ping(self, link: Link) -> None:
        self._confirm(link, [])

    def _confirm(self, link: Link, subjects: list[bytes]) -> None:
        self._asked.append(subjects)
        link.send(protocol.PING)

    def _read(self, link: Link) -> None:
        hear = self._listener.hear
        for word in link.words():
            if isinstance(word, Message):
                answer = hear(word)
                if answer is not None and word.reply:
                    link.send(protocol.publish(word.reply, answer))
            elif word.kind == b"PONG" and self._asked:
                heard = [subject for subject in self._asked.pop(0) if subject in self._sids]
                if heard:
                    self._listener.confirm(heard)

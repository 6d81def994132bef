"""Questions between processes that share a log, and which users are connected to which."""

from __future__ import annotations

import abc
import asyncio
import itertools
from collections.abc import Collection

import msgspec

from catenary.eventlog.nodes import Nodes
from catenary.eventlog.receipt import Receipt, wake

PRESENCE_SECONDS = 90.0
"""A process that does not say again that a user is connected is not believed for longer."""

REFRESH_SECONDS = 30.0


class Question(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    """What one process asks all others."""

    asker: str
    number: int
    body: bytes


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """What one of them answers; with nothing to say it says so."""

    number: int
    node: str
    bodies: list[bytes]


class Count(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """How many connections a user has to a process; said to those that have some too."""

    node: str
    user_id: str
    count: int
    is_answer: bool


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Question | Answer | Count).decode


class _Asked:
    """A question that waits for its answers."""

    def __init__(self, nodes: Collection[str]) -> None:
        self.missing = set(nodes)
        self.bodies: list[bytes] = []
        self.is_complete = Receipt()

    def take(self, answer: Answer) -> None:
        if answer.node in self.missing:
            self.missing.discard(answer.node)
            self.bodies += answer.bodies
        if not self.missing:
            self.is_complete.commit("", 1)
            wake((self.is_complete,))


class SharedNodes(Nodes):
    """
    The processes of a log that has several. A subclass brings the ways between them.

    Messages may be lost: a process that does not answer is left out.
    """

    def __init__(self, node: str) -> None:
        super().__init__()
        self.node = node
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._changed: set[str] = set()

    # The ways

    @abc.abstractmethod
    async def _others(self) -> Collection[str]:
        """Return the other processes that live."""

    @abc.abstractmethod
    async def _tell_all(self, message: bytes) -> None:
        """Send a message to every process."""

    @abc.abstractmethod
    def _tell(self, node: str, message: bytes) -> None:
        """Send a message to one process, later; called on any thread."""

    @abc.abstractmethod
    def refresh(self) -> None:
        """Say again who is here, where that is due. Called often."""

    # Asking

    async def ask(self, question: bytes, *, timeout: float = 1.0) -> list[bytes]:
        """Return what the processes answer, this one's first."""
        others = await self._others()
        found = self.answers(question)
        if not others:
            return found
        number = next(self._numbers)
        asked = self._asked[number] = _Asked(others)
        try:
            await self._tell_all(encode(Question(self.node, number, question)))
            async with asyncio.timeout(timeout):
                await asked.is_complete
        except TimeoutError:
            pass
        finally:
            del self._asked[number]
        return found + asked.bodies

    def hear(self, message: bytes) -> None:
        """Take what another process asks, answers or says."""
        said = _decode(message)
        if isinstance(said, Count):
            self._hear_count(said)
        elif isinstance(said, Answer):
            asked = self._asked.get(said.number)
            if asked is not None:
                asked.take(said)
        elif said.asker != self.node:
            bodies = self.answers(said.body)
            self._tell(said.asker, encode(Answer(said.number, self.node, bodies)))

    def _hear_count(self, said: Count) -> None:
        """Take another's count. Where counts are stored nobody says them."""

    # Presence

    def _count_changed(self, user_id: str) -> None:
        with self._presence_lock:
            self._changed.add(user_id)

    def take_changes(self) -> tuple[dict[str, int], list[str]]:
        """
        Return what changed since the last call: who is here, and who is gone.

        Of those who are here it is told with how many connections.
        """
        with self._presence_lock:
            changed, self._changed = self._changed, set()
            here = {user_id: self._present[user_id] for user_id in changed & self._present.keys()}
        return here, list(changed.difference(here))

    def changed_again(self, user_ids: Collection[str]) -> None:
        """What was taken could not be said: it is taken again."""
        with self._presence_lock:
            self._changed.update(user_ids)

    def all_changed(self) -> None:
        """Say again of every user that is here."""
        with self._presence_lock:
            self._changed.update(self._present)

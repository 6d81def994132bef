"""
The processes of a NATS log: who is connected to any of them, and questions to all.

Nothing of it is stored. A process listens on a subject for each user that is
connected to it; where nobody listens, the servers say so at once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from catenary.errors import LogError
from catenary.eventlog.nats.store import Store
from catenary.eventlog.shared.nodes import Count, SharedNodes, encode

if TYPE_CHECKING:
    from catenary.eventlog.nats.log import NatsLog

ANSWER_SECONDS = 1.0
"""A process that does not say for so long that a user is there is left out."""


class NatsNodes(SharedNodes):
    """Questions and presence over subjects."""

    def __init__(self, log: NatsLog) -> None:
        super().__init__(log.holder)
        self._log = log
        self._listened: set[str] = set()
        self._elsewhere: dict[str, dict[str, int]] = {}
        """Of users that are here: how many connections they have to others, as those said last."""

    async def _others(self) -> Collection[str]:
        return await self._log._ask(self._log._who_lives) - {self.node}

    async def _tell_all(self, message: bytes) -> None:
        await self._log._ask(Store.tell, self._log.names.nodes, b"n" + message)

    def _tell(self, node: str, message: bytes) -> None:
        subject = self._log.names.node(node)
        callers = self._log._callers
        if callers is not None:
            callers.run_later(lambda store: self._say(store, subject, b"n" + message))

    def _say(self, store: Store, subject: str, message: bytes) -> None:
        try:
            store.tell(subject, message)
        except LogError:
            # Who asked goes on without this answer.
            return

    # Presence

    def _count_changed(self, user_id: str) -> None:
        listener, callers = self._log._listener, self._log._callers
        if listener is None or callers is None:
            return
        subject = self._log.names.presence(user_id)
        with self._presence_lock:
            count = self._present.get(user_id, 0)
            if count and user_id not in self._listened:
                self._listened.add(user_id)
                listener.listen(subject.encode())
            elif not count and user_id in self._listened:
                self._listened.discard(user_id)
                self._elsewhere.pop(user_id, None)
                listener.leave(subject.encode())
        told = encode(Count(self.node, user_id, count, is_answer=False))
        callers.run_later(lambda store: self._say(store, subject, b"n" + told))

    def _hear_count(self, said: Count) -> None:
        if said.node == self.node:
            return
        with self._presence_lock:
            here = self._present.get(said.user_id, 0)
            if not here:
                return
            counts = self._elsewhere.setdefault(said.user_id, {})
            counts[said.node] = said.count
            elsewhere = sum(counts.values())
        if said.is_answer:
            self._crowded(said.user_id, elsewhere)
        else:
            told = Count(self.node, said.user_id, here, is_answer=True)
            self._tell(said.node, encode(told))

    def refresh(self) -> None:
        """Nothing is to be said again: who connects again listens again on every subject."""

    def subjects(self) -> list[bytes]:
        """Return the subjects of the users that are here, for one who listens to them from now on."""
        with self._presence_lock:
            self._listened = set(self._present)
            return [self._log.names.presence(user_id).encode() for user_id in self._present]

    async def is_present(self, user_id: str) -> bool:
        """Whether a user has a connection to any process."""
        if self.is_here(user_id):
            return True
        subject = self._log.names.presence(user_id)
        return await self._log._ask(Store.is_heard, subject, ANSWER_SECONDS)

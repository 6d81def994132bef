"""Which client messages this process handles now, and what it could not finish."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future

LEFT_REMEMBERED = 1000

Key = tuple[str, str]
"""The log's id and the message's."""


class Handling:
    """One message at work: its content's digest, and its answer once there is one."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.answer: Future[bytes] = Future()


class Handlings:
    """
    The messages of one log that this process handles, on whatever loop.

    ``left`` holds those whose claim stands although nobody handles them: with
    their reply where only the storing of it failed, with None where their
    handler was never started.
    """

    def __init__(self) -> None:
        self._at_work: dict[Key, Handling] = {}
        self.left: OrderedDict[Key, bytes | None] = OrderedDict()

    @property
    def keys(self) -> list[Key]:
        """The messages at work."""
        return list(self._at_work)

    def begin(self, key: Key, digest: bytes) -> tuple[Handling, bool]:
        """Return the handling of a message, and whether it is the caller's to do."""
        handling = Handling(digest)
        found = self._at_work.setdefault(key, handling)
        return found, found is handling

    def end(self, key: Key) -> None:
        """The message is at work no longer."""
        del self._at_work[key]

    def leave(self, key: Key, reply: bytes | None) -> None:
        """Remember a message that could not be finished."""
        self.left[key] = reply
        if len(self.left) > LEFT_REMEMBERED:
            self.left.popitem(last=False)

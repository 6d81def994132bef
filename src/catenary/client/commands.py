"""
The commands of a client: sent until they are answered.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from catenary.errors import UsageError

_encoder = msgspec.json.Encoder()


class Outcome(NamedTuple):
    """How a command ended: with a reply, or with the code of an error."""

    id: str
    reply: Any = None
    already_ended: bool = False
    error: str | None = None
    message: str = ""
    already_answered: bool = False
    answer: Any = None


class Commands:
    """
    The open commands of one client, in the order in which they were given.

    Each is written once on each connection until it is answered, always with
    the same id, so that the server can tell a repeat.
    """

    def __init__(self) -> None:
        self._open: dict[str, str] = {}
        self._unsent: deque[str] = deque()
        self._limit_bytes: int | None = None
        self._is_connected = False
        self._outcomes: list[Outcome] = []

    def __len__(self) -> int:
        return len(self._open)

    def add(self, message: Mapping[str, Any]) -> None:
        """
        Take a command; its ``id`` names it until its outcome.

        Raises:
            UsageError: If the id is open, or the message cannot be JSON.
        """
        command_id = message["id"]
        if command_id in self._open:
            raise UsageError(f"the command id {command_id!r} is still open; ids are used once")
        try:
            text = _encoder.encode(message).decode()
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"a command must be JSON: {error}") from error
        self._open[command_id] = text
        self._unsent.append(command_id)
        self._refuse_too_large(command_id)

    def forget(self, command_id: str) -> None:
        """Stop sending a command; nobody waits for its outcome any more."""
        self._open.pop(command_id, None)

    def connected(self, limit_bytes: int) -> None:
        """Begin a connection that takes messages up to ``limit_bytes``."""
        self._limit_bytes = limit_bytes
        self._is_connected = True
        self._unsent = deque(self._open)
        for command_id in list(self._open):
            self._refuse_too_large(command_id)

    def disconnected(self) -> None:
        """End the connection; what is open waits for the next."""
        self._is_connected = False

    @property
    def has_unsent(self) -> bool:
        """Whether something may wait to be written on the present connection."""
        return self._is_connected and bool(self._unsent)

    def to_send(self) -> list[str]:
        """What is to be written on this connection now, oldest first."""
        texts: list[str] = []
        while self._is_connected and self._unsent:
            text = self._open.get(self._unsent.popleft())
            if text is not None:
                texts.append(text)
        return texts

    def succeed(self, outcome: Outcome) -> None:
        """End a command with its ack. An id that is not open is ignored."""
        if self._open.pop(outcome.id, None) is not None:
            self._outcomes.append(outcome)

    def fail(self, command_id: str, code: str, message: str) -> None:
        """End a command with an error. An id that is not open is ignored."""
        if self._open.pop(command_id, None) is not None:
            self._outcomes.append(Outcome(command_id, error=code, message=message))

    def fail_largest(self) -> None:
        """Give up the largest command: the connection broke on a message too large."""
        if self._open:
            largest = max(self._open, key=lambda command_id: len(self._open[command_id]))
            self.fail(largest, "too_large", "the server closed the connection over its size")

    def fail_all(self, message: str) -> None:
        """End everything: the client is closed."""
        for command_id in list(self._open):
            self.fail(command_id, "closed", message)

    def outcomes(self) -> list[Outcome]:
        """What ended since the last call, in order."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _refuse_too_large(self, command_id: str) -> None:
        size_bytes = len(self._open[command_id].encode())
        if self._limit_bytes is not None and size_bytes > self._limit_bytes:
            problem = f"{size_bytes:,} bytes; the server takes {self._limit_bytes:,}"
            self.fail(command_id, "too_large", problem)

"""Where turns begin, kept in the log: found after a refresh, a restart, and on another node."""

from __future__ import annotations

import contextlib
import hashlib

import msgspec

from catenary.encoding import encode
from catenary.eventlog.base import EventLog
from catenary.position import Position
from catenary.wires.turn import Turn

KEPT_SECONDS = 24 * 3600.0
"""How long a turn can be found again."""


class Begun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Where a turn begins: after which place, with which message or run.

    ``wire_run_id`` is what its client calls the run, where clients name runs;
    what was said through ``through`` belongs to the client's former run.
    """

    thread_id: str
    after: str
    message_id: str | None = None
    run_id: str | None = None
    wire_run_id: str | None = None
    through: str | None = None
    at: float = 0.0
    """When the message was taken, in seconds since 1970."""

    def turn(self) -> Turn:
        """Return the turn before its first event."""
        return Turn(message_id=self.message_id, run_id=self.run_id)


class TurnStore:
    """The turns of one log: the latest of each thread, and those that clients gave names."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def keep(self, log_id: str, begun: Begun) -> None:
        """Let a turn be found, by its thread and by its client's name."""
        value = encode(begun)
        await self._log.put(_key(log_id, "thread", begun.thread_id), value, KEPT_SECONDS)
        if begun.wire_run_id is not None:
            await self._log.put(_key(log_id, "run", begun.wire_run_id), value, KEPT_SECONDS)

    async def forget(self, log_id: str, begun: Begun, former: Begun | None) -> None:
        """Take back a turn that was refused: the former one is the latest again."""
        if begun.wire_run_id is not None:
            await self._log.take(_key(log_id, "run", begun.wire_run_id))
        if former is None:
            await self._log.take(_key(log_id, "thread", begun.thread_id))
        else:
            await self.keep(log_id, former)

    async def find(self, log_id: str, thread_id: str) -> Begun | None:
        """Return the latest turn of a thread."""
        return _begun(await self._log.get(_key(log_id, "thread", thread_id)))

    async def find_run(self, log_id: str, wire_run_id: str) -> Begun | None:
        """Return the turn that its client calls so."""
        return _begun(await self._log.get(_key(log_id, "run", wire_run_id)))

    async def name_run(
        self, log_id: str, begun: Begun, wire_run_id: str, through: Position
    ) -> Begun:
        """Let what follows a place in a turn be found under a name of its client's."""
        named = msgspec.structs.replace(begun, wire_run_id=wire_run_id, through=str(through))
        await self._log.put(_key(log_id, "run", wire_run_id), encode(named), KEPT_SECONDS)
        return named


def _key(log_id: str, kind: str, name: str) -> str:
    # Hashed, so that no name can reach another user's turn.
    about = f"{log_id}\0{kind}\0{name}".encode()
    return f"turn:{hashlib.blake2b(about, digest_size=20).hexdigest()}"


def _begun(value: bytes | None) -> Begun | None:
    if value is None:
        return None
    # Another version of this program may have put it.
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(value, type=Begun)
    return None

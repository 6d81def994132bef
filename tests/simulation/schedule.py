"""
Schedules: what happens in one simulated world, as a value.

A schedule is a setup and a list of operations. It is all that a course depends
on, so its token, a short text, replays it.
"""

from __future__ import annotations

import base64
import binascii
import enum
from typing import Any

import msgspec

USERS = ("ada", "bob")
READERS = (("ada", ()), ("ada", ("t1",)), ("bob", ()), ("ada", ()))
"""Whose events each reader reads, and of which threads."""
PRODUCERS = (("ada", "t1"), ("ada", "t2"), ("bob", "t1"))
"""For whom each producer speaks, and in which thread."""

FORMAT = "1"
"""Of tokens. A token means something only to the commit that printed it."""


class LogKind(enum.IntEnum):
    """Which log a world has."""

    MEMORY = 0
    """``MemoryLog``, whose reads take time."""
    SQLITE = 1
    """``SqliteLog``, whose commits and reads take time."""


class Retain(enum.IntEnum):
    """What retention keeps."""

    ALL = 0
    FEW = 1
    FEW_BYTES = 2
    SHORT = 3
    """For half a minute."""


class Wire(enum.IntEnum):
    """What lies between clients and server."""

    PLAIN = 0
    SLOW = 1
    """Half a second each way."""
    PIECES = 2
    """A few hundred bytes at a time."""
    NARROW = 3
    """Little under way at a time: readers fall behind soon."""
    PROXY = 4
    """Cuts after 60 s without a byte."""


class Setup(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What stays as it is for the whole of a schedule."""

    log: LogKind = LogKind.MEMORY
    retain: Retain = Retain.ALL
    wire: Wire = Wire.PLAIN
    slow_log: int = 0
    """How much time the log takes; 0 none, then more and more."""
    slow_turn: int = 0
    """How much of the hub's turn each look at the stopwatch takes."""
    slow_machine: int = 0
    """1: each callback takes a millisecond, so that timers come due between them."""
    short_tokens: int = 0
    """1: credentials end after 40 s."""
    small_tails: int = 0
    """1: the tails of a node have no room, so upkeep drops them."""


class What(enum.IntEnum):
    """What is emitted."""

    NOTE = 0
    DELTA = 1
    PROGRESS = 2
    THINKING = 3
    BIG_NOTE = 4
    BIG_DELTA = 5
    HUGE_NOTE = 6
    """Larger than what a cursor may hand over in a turn."""
    KEYED_NOTE = 7
    """With an idempotency key, emitted twice."""


class Step(enum.IntEnum):
    """A step in the life of a run that is told by verbs."""

    START = 0
    TOOL = 1
    TOOL_ENDS = 2
    COMPLETE = 3
    FAIL = 4


class After(enum.IntEnum):
    """Where an application begins to read."""

    LAST = 0
    """Where it was when it left."""
    START = 1
    NOW = 2
    OPEN = 3


class Break(enum.IntEnum):
    """How a connection ends."""

    CUT = 0
    """Both ends are told."""
    LOSE = 1
    """Nobody is told."""
    CLIENT_ONLY = 2
    SERVER_ONLY = 3


class Stop(enum.IntEnum):
    """How a server's process ends; another follows."""

    GRACEFUL = 0
    KILLED = 1


class Operation(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """
    Something that happens, and how far the world goes on afterwards.

    ``pace`` says how many callbacks run before the next operation. ``stir``
    decides which of those that are ready is next; 0 is their own order.
    """

    pace: int = 0
    stir: int = 0


class Emit(Operation, frozen=True, array_like=True, tag=1):
    """A producer emits several events at once."""

    producer: int = 0
    what: What = What.NOTE
    count: int = 1


class Advance(Operation, frozen=True, array_like=True, tag=2):
    """A producer takes a step in its run."""

    producer: int = 0
    step: Step = Step.START


class Agent(Operation, frozen=True, array_like=True, tag=3):
    """A supervised agent starts."""

    producer: int = 0
    script: int = 0


class Connect(Operation, frozen=True, array_like=True, tag=4):
    """An application opens its client."""

    reader: int = 0
    after: After = After.LAST


class Leave(Operation, frozen=True, array_like=True, tag=5):
    """An application closes its client."""

    reader: int = 0


class Die(Operation, frozen=True, array_like=True, tag=6):
    """The process of an application is killed."""

    reader: int = 0


class Cut(Operation, frozen=True, array_like=True, tag=7):
    """A connection breaks; ``kept`` of what was under way still arrives."""

    reader: int = 0
    how: Break = Break.CUT
    kept: int = 0


class Stall(Operation, frozen=True, array_like=True, tag=8):
    """A network lets nothing through."""

    reader: int = 0


class Release(Operation, frozen=True, array_like=True, tag=9):
    """A network lets things through again, an application takes events again, a process goes on."""

    reader: int = 0


class Pause(Operation, frozen=True, array_like=True, tag=10):
    """An application takes no events."""

    reader: int = 0


class Freeze(Operation, frozen=True, array_like=True, tag=11):
    """The process of an application stands still."""

    reader: int = 0


class Wait(Operation, frozen=True, array_like=True, tag=12):
    """Time goes on."""

    how_long: int = 0


class NewTerm(Operation, frozen=True, array_like=True, tag=13):
    """An operator begins a new term, for one user or for all."""

    user: int = 0


class Forge(Operation, frozen=True, array_like=True, tag=14):
    """An application comes back with a position that its log never reached."""

    reader: int = 0
    beyond: int = 0


class Erase(Operation, frozen=True, array_like=True, tag=15):
    """A thread of a user is erased, or (2) all of a user."""

    user: int = 0
    thread: int = 0


class DropTail(Operation, frozen=True, array_like=True, tag=16):
    """The frames in memory of a user's log are dropped."""

    user: int = 0


class Command(Operation, frozen=True, array_like=True, tag=17):
    """A client sends a message."""

    reader: int = 0
    number: int = 0


class CancelRun(Operation, frozen=True, array_like=True, tag=18):
    """A client asks for a run to be cancelled."""

    reader: int = 0
    producer: int = 0


class Restart(Operation, frozen=True, array_like=True, tag=19):
    """The server stops, and another one starts."""

    how: Stop = Stop.GRACEFUL


class LogAway(Operation, frozen=True, array_like=True, tag=20):
    """The log can be neither read nor written for a while."""

    how_long: int = 0


class FreezeServer(Operation, frozen=True, array_like=True, tag=21):
    """The server's process stands still for a while."""

    how_long: int = 0


class Kick(Operation, frozen=True, array_like=True, tag=22):
    """The application on the server ends a user's connections, for good."""

    user: int = 0


class Sweep(Operation, frozen=True, array_like=True, tag=23):
    """The upkeep of the log is done now: what is old goes, what ended runs said is merged."""


AnyOperation = (
    Emit
    | Advance
    | Agent
    | Connect
    | Leave
    | Die
    | Cut
    | Stall
    | Release
    | Pause
    | Freeze
    | Wait
    | NewTerm
    | Forge
    | Erase
    | DropTail
    | Command
    | CancelRun
    | Restart
    | LogAway
    | FreezeServer
    | Kick
    | Sweep
)


class Schedule(msgspec.Struct, frozen=True, array_like=True):
    """A setup, and what happens in it, in order."""

    setup: Setup
    operations: list[AnyOperation]

    @property
    def token(self) -> str:
        """The schedule as a short text without spaces."""
        plain = [_trimmed(self.setup), *map(_trimmed, self.operations)]
        packed = msgspec.msgpack.encode(plain)
        return FORMAT + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def from_token(cls, token: str) -> Schedule:
        """
        Read a token.

        Raises:
            ValueError: If it is none, or of another format.
        """
        if not token.startswith(FORMAT):
            raise ValueError(f"{token[:20]!r} is no token of format {FORMAT}")
        text = token.removeprefix(FORMAT)
        try:
            packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            setup, *operations = msgspec.msgpack.decode(packed, type=list[list[int]])
            return msgspec.convert((setup, operations), cls)
        except (binascii.Error, msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
            raise ValueError(f"{token[:20]!r} cannot be read as a schedule: {error}") from error

    def __str__(self) -> str:
        return "\n".join(map(shown, [self.setup, *self.operations]))


def _trimmed(value: msgspec.Struct) -> list[int]:
    fields: list[int] = msgspec.to_builtins(value)
    while fields and fields[-1] == 0 and len(fields) > 1:
        fields.pop()
    return fields


def shown(value: msgspec.Struct) -> str:
    """Return a line such as ``Emit(count=3)``: what is as by default is left out."""
    fields: dict[str, Any] = {
        name: getattr(value, name)
        for name, default in zip(
            value.__struct_fields__, msgspec.structs.fields(value), strict=True
        )
        if getattr(value, name) != default.default
    }
    shown = (
        f"{name}={item.name if isinstance(item, enum.Enum) else item}"
        for name, item in fields.items()
    )
    return f"{type(value).__name__}({', '.join(shown)})"

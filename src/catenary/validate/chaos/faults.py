"""What a network does to the connections through it. Pure: a description, and what it draws."""

from __future__ import annotations

import enum
import math
from random import Random
from typing import NamedTuple

import msgspec

from catenary.errors import UsageError

CHUNK_BYTES = 16 * 1024
"""What arrives at once meets its fate in chunks of at most this size, that of a TLS record."""

EARLY_BYTES = 1000
"""How far an early break reaches: about as far as the handshake of a WebSocket."""

Seed = int | str


def seeded(*words: object) -> Random:
    """Return the chance that these words stand for, on any machine."""
    return Random(" ".join(map(str, words)))  # noqa: S311  # it is to be drawn again


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a network does to the connections through it; without arguments, nothing.

    Times are seconds, for each direction; probabilities and shares go from 0 to
    1. What is said of a chunk holds for what arrives at once, or for each 16 KiB
    of it. To change one value of faults that exist: ``msgspec.structs.replace``.

    Raises:
        UsageError: For a value that cannot be.
    """

    delay: float = 0.0
    """Everything arrives so much later."""
    jitter: float = 0.0
    """Each chunk arrives up to so much later still, drawn evenly. No chunk overtakes another."""
    bytes_per_second: float | None = None
    """What a direction carries at most; None for no limit."""
    bytes_per_second_up: float | None = None
    """The same for what clients send, where it differs."""
    split_bytes: int | None = None
    """Everything is passed on in pieces of at most this size, each sent by itself."""
    loss: float = 0.0
    """The probability that a chunk is lost and arrives by its retransmission, as TCP has it."""
    retransmit: float = 0.2
    """How much later a lost chunk arrives. 0.2 is Linux's least, 1.0 that of RFC 6298."""
    stall: float = 0.0
    """The probability that a chunk and all that follows it are held up."""
    stall_seconds: float = 1.0
    """For how long."""
    corrupt: float = 0.0
    """The probability that one byte of a chunk is altered."""
    corrupt_after_bytes: int = 0
    """Of each direction so many bytes go unharmed, such as those of a handshake."""
    cut: float = 0.0
    """The probability that a connection is cut, sooner or later."""
    half_open: float = 0.0
    """The probability that one which is not cut goes silent for ever, its sockets open."""
    cut_within_bytes: int = 20_000
    """At the latest after so many bytes, of both directions together, either happens."""
    cut_early: float = 0.3
    """The share of both that fall within the first 1,000 bytes, where the handshake is."""
    reset: float = 0.5
    """The share of the cuts that are made by a reset; the others by an end."""
    refuse: float = 0.0
    """The probability that a new connection is dropped at once, by a reset."""
    idle_timeout: float | None = None
    """A connection on which nothing arrives for so long is cut, as by a load balancer."""
    lifetime: float | None = None
    """A connection of this age is cut, whatever it does."""

    def __post_init__(self) -> None:
        for names, holds, rule in _RULES:
            for name in names:
                value = getattr(self, name)
                if not holds(value):
                    raise UsageError(f"{name}={value!r}: {name} {rule}")

    def __str__(self) -> str:
        """Name what differs from a network that does nothing."""
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        told = [f"{name}={value}" for name, value in values if value != getattr(CALM, name)]
        return " ".join(told) or "calm"


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def _is_probability(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _is_limit(value: object) -> bool:
    return value is None or (_is_time(value) and value != 0)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value >= 0


_RULES = (
    (
        ("loss", "stall", "corrupt", "cut", "half_open", "cut_early", "reset", "refuse"),
        _is_probability,
        "goes from 0 (never) to 1 (always); 45 % is 0.45",
    ),
    (
        ("delay", "jitter", "retransmit", "stall_seconds"),
        _is_time,
        "is in seconds, 0 or more",
    ),
    (
        ("bytes_per_second", "bytes_per_second_up", "idle_timeout", "lifetime"),
        _is_limit,
        "is more than 0, or None for no limit",
    ),
    (
        ("corrupt_after_bytes",),
        _is_size,
        "is a whole number of bytes, 0 or more",
    ),
    (
        ("cut_within_bytes",),
        lambda value: _is_size(value) and value != 0,
        "is a whole number of bytes, 1 or more",
    ),
    (
        ("split_bytes",),
        lambda value: value is None or (_is_size(value) and value != 0),
        "is a whole number of bytes, 1 or more, or None",
    ),
)


CALM = Faults()
"""A network that does nothing."""


class Way(enum.Enum):
    """The two directions of a connection."""

    UP = "up"
    """From the client to the server."""
    DOWN = "down"
    """From the server to the client."""

    @property
    def back(self) -> Way:
        """The other direction."""
        return Way.DOWN if self is Way.UP else Way.UP


class Ending(enum.Enum):
    """How both sockets of a connection are closed."""

    END = "end"
    RESET = "reset"


class Fate(NamedTuple):
    """
    What chance holds for one connection as a whole: a number from 0 to 1 for each question.

    The numbers depend on the seed and the connection's number only; faults say
    what they amount to. So more faults hit the same connections and further ones.
    """

    refuse: float
    cut: float
    half_open: float
    early: float
    place: float
    reset: float

    @classmethod
    def draw(cls, seed: Seed, number: int) -> Fate:
        """Draw for connection ``number`` of a network with this seed."""
        random = seeded(seed, number)
        return cls(*(random.random() for _ in cls._fields))

    def is_refused(self, faults: Faults) -> bool:
        """Whether the connection is dropped at once."""
        return self.refuse < faults.refuse

    def is_cut(self, faults: Faults) -> bool:
        """Whether it is cut when it has come to its place."""
        return self.cut < faults.cut

    def goes_silent(self, faults: Faults) -> bool:
        """Whether it goes silent there instead."""
        return not self.is_cut(faults) and self.half_open < faults.half_open

    def place_bytes(self, faults: Faults) -> int:
        """Return how many bytes pass before that, in both directions together."""
        reach = faults.cut_within_bytes
        if self.early < faults.cut_early:
            reach = min(reach, EARLY_BYTES)
        return int(self.place * reach)

    def ending(self, faults: Faults) -> Ending:
        """Return how it is cut, when it is."""
        return Ending.RESET if self.reset < faults.reset else Ending.END

"""What the methods of an event log take and answer."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from catenary.eventlog.terms import Gap
from catenary.position import Position
from catenary.record import Record


class Durability(enum.StrEnum):
    """What an acknowledged event survives, from least to most."""

    MEMORY = "memory"
    PROCESS = "process"
    POWER = "power"

    def is_below(self, other: Durability) -> bool:
        """Whether this survives less than another."""
        order = list(Durability)
        return order.index(self) < order.index(other)


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much of one log is kept, whichever limit comes first.

    While a run is open the ``open_`` limits hold instead. Ages in seconds.
    """

    events: int = 10_000
    bytes: int = 16 * 1024 * 1024
    age: float = 24 * 3600
    open_events: int = 100_000
    open_bytes: int = 64 * 1024 * 1024


class Page(NamedTuple):
    """
    What a reader gets from the log in one step.

    ``gap`` comes before ``records``. ``place`` is the reader's place after
    them; it may be beyond the last record when others were filtered out.
    """

    records: list[Record]
    place: Position
    gap: Gap | None
    is_at_head: bool


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the log knows of one run without reading its events. Times in milliseconds."""

    log_id: str
    run_id: str
    thread_id: str | None
    agent_name: str | None
    parent_run_id: str | None
    is_open: bool
    holder: str
    first_seq: int
    last_seq: int
    started_at: int
    last_at: int
    lease: float | None = None
    cancel_requested_at: int | None = None
    end_type: str | None = None
    kept_fold: bytes | None = None
    """The run folded through what retention dropped, encoded; None if nothing was."""


class CancelOutcome(enum.Enum):
    """What became of a request to cancel."""

    STORED = "stored"
    NOT_FOUND = "not_found"
    ALREADY_ENDED = "already_ended"


class ClaimState(enum.Enum):
    """What a command's id says when it is claimed."""

    NEW = "new"
    """Nobody claimed it: the caller handles it and calls ``finish_command``."""
    HELD = "held"
    """This process handles it now."""
    ELSEWHERE = "elsewhere"
    """Another process handles it now: claim again for its reply."""
    DONE = "done"
    """It was handled; the reply is stored."""
    INTERRUPTED = "interrupted"
    """A process that is gone claimed it and stored no reply."""
    CONFLICT = "conflict"
    """The id was used for other content."""


class Claim(NamedTuple):
    """The answer to a claim; ``reply`` is set when it is done."""

    state: ClaimState
    reply: bytes | None = None

"""The conditions that a client can be in, and its measures."""

from __future__ import annotations

import enum
from typing import NamedTuple

WORDS = frozenset({"start", "open", "now"})
"""What may stand in ``after`` instead of a position."""


class State(enum.StrEnum):
    """
    Where a client stands.

    ``connecting`` until the server says who one is; ``replaying`` until
    everything up to the head has come; ``live``; ``waiting`` before the next
    attempt; ``closed`` for good.
    """

    CONNECTING = "connecting"
    REPLAYING = "replaying"
    LIVE = "live"
    WAITING = "waiting"
    CLOSED = "closed"


class Disconnect(enum.StrEnum):
    """Why the session gives a connection up by itself."""

    FAULT = "fault"
    SILENCE = "silence"
    PROBE = "probe"
    DEADLINE = "deadline"
    STOPPED = "stopped"
    BEHIND = "behind"


class Limits(NamedTuple):
    """
    The measures of a session; seconds and bytes.

    Reading ahead of the application stops at ``ahead_frames`` or
    ``ahead_bytes``. While an answer is awaited reading goes on; what then lies
    beyond ``answer_ahead_bytes`` is left to the log and asked for again.
    """

    attempt: float = 10.0
    held: float = 5.0
    probe: float = 2.0
    report_interval: float = 1.0
    silence_factor: float = 2.5
    ahead_frames: int = 64
    ahead_bytes: int = 1 << 20
    answer_ahead_bytes: int = 4 << 20


class Stats(NamedTuple):
    """What a client has seen since it was opened."""

    attempts: int
    connections: int
    events: int
    gaps: int
    duplicates: int
    bytes_received: int

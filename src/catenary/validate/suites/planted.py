"""Faults that are planted on purpose, so that a campaign also tests its own judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from catenary.events import WebSocketEvent
from catenary.position import Position
from catenary.validate.checker import Fault, OrderingChecker

_READER, _USER, _EPOCH, _LENGTH = "planted", "user_123", "k3", 5


class Plant(NamedTuple):
    """What is planted: the numbers that come, in words, and whose they are."""

    asked: str
    seqs: Sequence[int]
    log_id: str = _USER
    gap_before: int | None = None
    """A gap is told before this number."""
    changed: int | None = None
    """The event with this number has another's content."""


PLANTS = {
    Fault.HOLE: Plant("event 3 of 5 is left out", (1, 2, 4, 5)),
    Fault.LOST: Plant("event 3 of 5, which was acknowledged, never comes", (1, 2, 4, 5)),
    Fault.DOUBLE: Plant("event 3 of 5 comes twice", (1, 2, 3, 3, 4, 5)),
    Fault.SWAP: Plant("events 3 and 4 of 5 come the other way round", (1, 2, 4, 3, 5)),
    Fault.FOREIGN: Plant("the events are another user's", (1, 2, 3, 4, 5), log_id="user_456"),
    Fault.CHANGED: Plant("event 3 of 5 has another content than was acknowledged", (1, 2, 3, 4, 5), changed=3),
    Fault.REPEATED: Plant("one content stands at two places", (1, 2, 3, 4, 5), changed=4),
    Fault.TOLD_LOSS: Plant("a gap is told in place of event 3", (1, 2, 4, 5), gap_before=4),
    Fault.BEHIND: Plant("the last two of 5 events have not come", (1, 2, 3)),
}  # fmt: skip


def plant(fault: Fault, checker: OrderingChecker) -> dict[str, Position]:
    """Let one reader receive what is planted; return where its log ends."""
    planted = PLANTS[fault]
    checker.begin(_READER, _USER, Position(_EPOCH, 0))
    for seq in planted.seqs:
        if seq == planted.gap_before:
            checker.gap(_READER, Position(_EPOCH, seq - 2), Position(_EPOCH, seq))
        checker.received(_READER, _event(seq, is_changed=seq == planted.changed), planted.log_id)
    for seq in range(1, _LENGTH + 1):
        checker.acknowledged(_USER, Position(_EPOCH, seq), f"m{seq}")
    return {_USER: Position(_EPOCH, _LENGTH)}


def _event(seq: int, *, is_changed: bool) -> WebSocketEvent:
    marker = f"m{seq - 1 if is_changed else seq}"
    return WebSocketEvent(
        type="validate.note", id=f"{_EPOCH}:{seq}", seq=seq, data={"marker": marker}
    )

"""
Translations: one stream of a turn, from native messages to another wire's frames.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, Protocol

import msgspec

from catenary.events import WebSocketEvent, decode_event
from catenary.wires.turn import Turn


class TurnEncoder(Protocol):
    """What turns the events of a turn into the frames of one wire."""

    turn: Turn

    def take(self, event: WebSocketEvent) -> list[dict[str, Any]]: ...
    def stop(self) -> list[dict[str, Any]]: ...


class Said(NamedTuple):
    """
    One frame as JSON, and the place of a reader that has it.

    The place is a position. Between the frames of one event it is that before
    the event, ``+``, and how many of them came.
    """

    place: str
    frame: bytes


class Problem(enum.StrEnum):
    """Why nothing more can be said on a stream although its turn goes on."""

    GAP = "events of this answer are no longer kept"
    CLOSING = "the server restarts"
    SILENCE = "no agent began to answer"

    @property
    def is_final(self) -> bool:
        """Whether another stream could not say more either."""
        return self is not Problem.CLOSING


class _Head(msgspec.Struct):
    type: str
    seq: int | None = None
    reason: str | None = None


_head = msgspec.json.Decoder(_Head).decode
_encode = msgspec.json.Encoder().encode


class Translation:
    """
    Takes the native messages of one connection, and says when its stream is done.

    A turn that is stopped by an event before ``stops_from`` goes on: what
    follows is in the log. The first ``skips`` frames were read before.

    Attributes:
        is_done: Whether the last frame was said.
        problem: Why nothing more can be said although the turn goes on.
    """

    def __init__(self, encoder: TurnEncoder, *, stops_from: int = 0, skips: int = 0) -> None:
        self.encoder = encoder
        self._stops_from = stops_from
        self._skips = skips
        self.is_done = False
        self.problem: Problem | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether another stream can say what this one did not."""
        return self.problem is None or not self.problem.is_final

    def take(self, payload: bytes) -> list[Said]:
        """Return the frames of one native message."""
        head = _head(payload)
        if head.seq is not None:
            return self._take(decode_event(payload))
        if head.type == "gap" and self.encoder.turn.is_started:
            self.problem = Problem.GAP
        elif head.type == "closing":
            self.problem = Problem.CLOSING
        return []

    def _take(self, event: WebSocketEvent) -> list[Said]:
        if self.is_done:
            return []
        frames = self.encoder.take(event)
        turn = self.encoder.turn
        if turn.is_stopped and turn.stopped_at == event.seq and event.seq >= self._stops_from:
            self.is_done = True
            frames += self.encoder.stop()
        skipped, self._skips = self._skips, 0
        before = f"{event.epoch}:{(event.from_seq or event.seq) - 1}"
        last = len(frames)
        return [
            Said(f"{before}+{number}" if number < last else event.id, _encode(frame))
            for number, frame in enumerate(frames, 1)
            if number > skipped
        ]

"""Silences: the times in which a user got no event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from catenary.events import RUN_ENDS, WebSocketEvent
from catenary.validate.scoring.received import Received

SILENCE_LIMIT = 5.0
"""A longer time without an event is a silence, in seconds."""


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """
    A time without an event, longer than the limit. Seconds of the clock of what was received.

    Attributes:
        user_id: Who got nothing.
        run_id: The run that said nothing; None if the user got nothing at all.
        began: When the event before it came, or when the watching began.
        ended: When the event after it came, or when the watching ended.
        before: The event before it.
        after: The event after it.
        open_runs: The runs that were open meanwhile.
    """

    user_id: str
    run_id: str | None
    began: float
    ended: float
    before: WebSocketEvent | None
    after: WebSocketEvent | None
    open_runs: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.ended - self.began

    @property
    def is_run_open(self) -> bool:
        """Whether somebody worked meanwhile, so that the user had something to wait for."""
        return bool(self.open_runs)

    def __str__(self) -> str:
        whose = self.user_id if self.run_id is None else f"{self.user_id}, run {self.run_id}"
        between = f"between {_told(self.before)} and {_told(self.after)}"
        waiting = f"; open: {', '.join(self.open_runs)}" if self.open_runs else ""
        return f"{whose}: {self.seconds:.1f} s without an event, {between}{waiting}"


def _told(event: WebSocketEvent | None) -> str:
    return "the edge of the watch" if event is None else f"{event.type} ({event.position})"


class OpenRuns:
    """The runs of one user that have begun and not ended, as events tell it."""

    def __init__(self) -> None:
        self._open: dict[str, None] = {}
        self._ended: set[str] = set()

    def take(self, event: WebSocketEvent) -> None:
        """Take the next event; what comes after the end of its run changes nothing."""
        run_id = event.run_id
        if run_id is None or run_id in self._ended:
            return
        if event.type in RUN_ENDS:
            self._open.pop(run_id, None)
            self._ended.add(run_id)
        else:
            self._open[run_id] = None

    @property
    def ids(self) -> tuple[str, ...]:
        """Their ids, the one that began first at first."""
        return tuple(self._open)


def user_silences(
    user_id: str,
    received: Sequence[Received],
    *,
    limit: float = SILENCE_LIMIT,
    since: float | None = None,
    until: float | None = None,
) -> list[Silence]:
    """
    Return the silences of one user, whose events are given in the order of their receipt.

    ``since`` and ``until`` are when the watching began and ended; without them
    it is from the first event to the last. An event more within that time
    never makes a silence longer.
    """
    runs = OpenRuns()
    found = []
    for before, after in _neighbours(received):
        if before is not None:
            runs.take(before.event)
        silence = _between(user_id, None, before, after, runs.ids, since, until)
        if silence is not None and silence.seconds > limit:
            found.append(silence)
    return found


def run_silences(
    user_id: str,
    run_id: str,
    received: Iterable[Received],
    *,
    limit: float = SILENCE_LIMIT,
    until: float | None = None,
) -> list[Silence]:
    """
    Return the silences of one run, from its first event to its end.

    ``received`` are in the order of their receipt; events of other runs do not
    count. A run that is open lasts until ``until``.
    """
    own: list[Received] = []
    is_open = True
    for each in received:
        if is_open and each.event.run_id == run_id:
            own.append(each)
            is_open = each.event.type not in RUN_ENDS
    found = []
    for before, after in _neighbours(own):
        if before is None or (after is None and not is_open):
            continue
        silence = _between(user_id, run_id, before, after, (run_id,), None, until)
        if silence is not None and silence.seconds > limit:
            found.append(silence)
    return found


def _neighbours(
    received: Sequence[Received],
) -> Iterator[tuple[Received | None, Received | None]]:
    """Yield what follows each other, with the edges."""
    ordered = sorted(received, key=lambda each: each.at)
    return zip([None, *ordered], [*ordered, None], strict=True)


def _between(
    user_id: str,
    run_id: str | None,
    before: Received | None,
    after: Received | None,
    open_runs: tuple[str, ...],
    since: float | None,
    until: float | None,
) -> Silence | None:
    began = before.at if before is not None else since
    ended = after.at if after is not None else until
    if began is None or ended is None:
        return None
    return Silence(
        user_id=user_id,
        run_id=run_id,
        began=began,
        ended=ended,
        before=before.event if before is not None else None,
        after=after.event if after is not None else None,
        open_runs=open_runs,
    )

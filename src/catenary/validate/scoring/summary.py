"""What users saw, in a few figures for each of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

import msgspec

from catenary.events import RUN_ENDS, EventType, WebSocketEvent
from catenary.validate.scoring.content import content_score
from catenary.validate.scoring.received import Received
from catenary.validate.scoring.silence import SILENCE_LIMIT, Silence, run_silences, user_silences
from catenary.validate.scoring.timing import RunTiming, run_timing

WEAK_SHOWN = 10
"""How many of the weakest events a summary shows."""


class WeakEvent(msgspec.Struct, frozen=True):
    """An event that lacks something."""

    event: WebSocketEvent
    score: int
    lacks: tuple[str, ...]

    def __str__(self) -> str:
        lacks = ", ".join(self.lacks)
        return f"{self.event.type} ({self.event.position}) scores {self.score}: no {lacks}"


class RunScore(msgspec.Struct, frozen=True, kw_only=True):
    """
    One run as its user saw it.

    Attributes:
        run_id: The run.
        agent_name: Whose it is, if an event said so.
        end: The type of its end; None while it is open.
        events: How many of its events came.
        content: What they are worth, 1 to 5; each type of event counts as much as another.
        timing: How it felt to wait for it.
        silences: When it said nothing.
    """

    run_id: str
    agent_name: str | None
    end: str | None
    events: int
    content: float
    timing: RunTiming
    silences: tuple[Silence, ...]


class UserScore(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one user saw.

    Attributes:
        user_id: The user.
        events: How many events came.
        content: What they are worth, 1 to 5; None without one.
        timing: The mean of the runs' timing scores, 1 to 5; None without a run.
        runs: Each run, in the order in which they began.
        silences: When nothing came.
        weakest: The events that lack the most, at most ten.
    """

    user_id: str
    events: int
    content: float | None
    timing: float | None
    runs: tuple[RunScore, ...]
    silences: tuple[Silence, ...]
    weakest: tuple[WeakEvent, ...]

    @property
    def waited_in_silence(self) -> float:
        """How long the user got nothing while a run was open, in seconds; silences only."""
        return sum(silence.seconds for silence in self.silences if silence.is_run_open)


def score_users(
    received: Iterable[Received],
    *,
    users: Iterable[str] = (),
    silence_limit: float = SILENCE_LIMIT,
    since: float | None = None,
    until: float | None = None,
) -> dict[str, UserScore]:
    """
    Return what each user saw, by the users that the events name.

    ``users`` are those who are to be in it though nothing came. ``since`` and
    ``until`` are when the watching began and ended, on the clock of what was
    received: without them a user who got nothing has no silence.
    """
    by_user: dict[str, list[Received]] = {user_id: [] for user_id in users}
    for each in sorted(received, key=lambda each: each.at):
        by_user.setdefault(each.event.user_id or "", []).append(each)
    return {
        user_id: _score_user(user_id, events, silence_limit, since, until)
        for user_id, events in by_user.items()
    }


def _score_user(
    user_id: str,
    received: Sequence[Received],
    limit: float,
    since: float | None,
    until: float | None,
) -> UserScore:
    asked = _asked(received)
    runs = tuple(
        _score_run(user_id, run_id, events, asked.get(run_id), limit, until)
        for run_id, events in _by_run(received).items()
    )
    return UserScore(
        user_id=user_id,
        events=len(received),
        content=content_of(received),
        timing=fmean(run.timing.score for run in runs) if runs else None,
        runs=runs,
        silences=tuple(user_silences(user_id, received, limit=limit, since=since, until=until)),
        weakest=_weakest(received),
    )


def _score_run(
    user_id: str,
    run_id: str,
    received: Sequence[Received],
    asked_at: float | None,
    limit: float,
    until: float | None,
) -> RunScore:
    end = next((each.event.type for each in received if each.event.type in RUN_ENDS), None)
    times = [each.at for each in received]
    if end is None and until is not None:
        times.append(until)
    return RunScore(
        run_id=run_id,
        agent_name=next(
            (each.event.agent_name for each in received if each.event.agent_name), None
        ),
        end=end,
        events=len(received),
        content=content_of(received) or 1.0,
        timing=run_timing(times, asked_at=asked_at),
        silences=tuple(run_silences(user_id, run_id, received, limit=limit, until=until)),
    )


def content_of(received: Iterable[Received]) -> float | None:
    """
    Return what events are worth together, 1 to 5; None without one.

    Each type counts as much as another: a thousand good deltas do not hide a
    tool that never says what came out.
    """
    by_type: defaultdict[str, list[int]] = defaultdict(list)
    for each in received:
        by_type[each.event.type].append(content_score(each.event).score)
    return fmean(map(fmean, by_type.values())) if by_type else None


def _weakest(received: Iterable[Received]) -> tuple[WeakEvent, ...]:
    scored = (WeakEvent(each.event, *content_score(each.event)) for each in received)
    weak = sorted((each for each in scored if each.lacks), key=lambda each: each.score)
    return tuple(weak[:WEAK_SHOWN])


def _by_run(received: Iterable[Received]) -> dict[str, list[Received]]:
    runs: dict[str, list[Received]] = {}
    for each in received:
        if each.event.run_id is not None:
            runs.setdefault(each.event.run_id, []).append(each)
    return runs


def _asked(received: Iterable[Received]) -> dict[str, float]:
    """Return, by run, when its user asked for it: the message before it in its thread."""
    waiting: dict[str | None, float] = {}
    asked: dict[str, float] = {}
    begun: set[str] = set()
    for event, at in received:
        if event.type == EventType.USER_MESSAGE:
            waiting[event.thread_id] = at
        elif event.run_id is not None and event.run_id not in begun:
            begun.add(event.run_id)
            if event.thread_id in waiting:
                asked[event.run_id] = waiting.pop(event.thread_id)
    return asked

"""
How a run felt to whoever waited for it: 1 (given up) to 5 (it flows).

Three things are graded: the time to the first event, the longest gap, and how
steadily events came. The score of a run is its lowest grade, for that is what
is remembered.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

WAITS = (1.0, 2.0, 5.0, 10.0)
"""
The longest waits of the grades 5 to 2, in seconds.

After 1 s a user notices the wait, and after 10 s turns to something else
(J. Nielsen, Usability Engineering, 1993); 2 s is what a conversation bears
(R. B. Miller, Response Time in Man-Computer Conversational Transactions, 1968);
5 s is the silence that the campaigns report.
"""

STEADINESS = (0.25, 0.5, 0.75, 0.9)
"""The least steadiness of the grades 2 to 5."""

FRESH = WAITS[0]
"""An event is fresh for so many seconds."""


class RunTiming(NamedTuple):
    """
    The timing of one run. Seconds.

    Attributes:
        score: 1 to 5, the lowest of the three grades.
        first_event: From the question to the first event; None if there was no question.
        longest_gap: The longest time between two events that follow each other.
        steadiness: The part of the run's time in which the last event was fresh, 0 to 1.
    """

    score: int
    first_event: float | None
    longest_gap: float
    steadiness: float


def run_timing(times: Iterable[float], *, asked_at: float | None = None) -> RunTiming:
    """
    Return the timing of a run whose events came at these times.

    ``asked_at`` is when its user asked for it, where that is known. Of a run
    that is still open the last time is that until which it was watched.
    An event more within that time never lowers the score.

    Raises:
        ValueError: Without a time.
    """
    ordered = sorted(times)
    if not ordered:
        raise ValueError("a run without an event has no timing")
    gaps = [after - before for before, after in pairwise(ordered)]
    first = None if asked_at is None else max(0.0, ordered[0] - asked_at)
    longest, steadiness = max(gaps, default=0.0), _steadiness(gaps)
    grades = [_grade(longest), 1 + bisect_right(STEADINESS, steadiness)]
    if first is not None:
        grades.append(_grade(first))
    return RunTiming(min(grades), first, longest, steadiness)


def _grade(wait: float) -> int:
    return 5 - bisect_left(WAITS, wait)


def _steadiness(gaps: list[float]) -> float:
    lasted = sum(gaps)
    return sum(min(gap, FRESH) for gap in gaps) / lasted if lasted else 1.0

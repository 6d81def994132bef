"""How a run felt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.validate.scoring import run_timing
from tests.validate.scoring.making import fixed

times = st.lists(st.floats(0, 1000), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("at", "asked_at", "score"),
    [
        ([10.0], None, 5),
        ([10.0, 10.2, 10.5, 11.5], None, 5),
        ([10.0, 10.5], 9.5, 5),
        ([10.0, 10.5], 8.0, 4),
        ([10.0, 10.5], 5.0, 3),
        ([10.0, 10.5], 0.0, 2),
        ([12.0, 12.5], 0.0, 1),
        ([10.0, 12.0], None, 3),
        ([10.0, 15.0], None, 1),
        ([*range(10, 60), 64.0], None, 3),
        ([*range(10, 60), 70.0], None, 1),
    ],
)
def test_a_run_scores_as_its_worst_part(
    at: list[float], asked_at: float | None, score: int
) -> None:
    """The wait for the first event, the longest gap, and how long nothing was fresh."""
    assert run_timing(at, asked_at=asked_at).score == score


def test_what_is_graded_is_told() -> None:
    """In seconds; steadiness is the part of the time within a second after an event."""
    timing = run_timing([13.0, 10.0, 11.0], asked_at=9.0)
    assert timing.first_event == 1.0
    assert timing.longest_gap == 2.0
    assert timing.steadiness == pytest.approx(2 / 3)
    assert run_timing([10.0]).first_event is None


def test_a_run_without_an_event_has_no_timing() -> None:
    with pytest.raises(ValueError, match="without an event"):
        run_timing([])


@fixed
@given(times, st.none() | st.floats(0, 1000))
def test_scores_and_figures_have_bounds(at: list[float], asked_at: float | None) -> None:
    timing = run_timing(at, asked_at=asked_at)
    assert 1 <= timing.score <= 5
    assert 0 <= timing.steadiness <= 1 + 1e-9
    assert 0 <= timing.longest_gap <= max(at) - min(at)
    assert timing.first_event is None or timing.first_event >= 0


@fixed
@given(times, st.floats(0, 1), st.none() | st.floats(0, 1000))
def test_an_event_more_never_lowers_a_score(
    at: list[float], where: float, asked_at: float | None
) -> None:
    """Anywhere between the first and the last."""
    more = min(at) + where * (max(at) - min(at))
    before, after = run_timing(at, asked_at=asked_at), run_timing([*at, more], asked_at=asked_at)
    assert after.longest_gap <= before.longest_gap
    assert after.steadiness >= before.steadiness - 1e-9
    # Where a figure lies on a border, rounding may decide.
    near = any(abs(before.steadiness - border) < 1e-9 for border in (0.25, 0.5, 0.75, 0.9))
    assert after.score >= before.score or near


@fixed
@given(times, st.floats(0, 1000), st.floats(0, 1000))
def test_an_earlier_first_event_never_lowers_a_grade(
    at: list[float], asked_at: float, sooner: float
) -> None:
    """The wait for it is counted from the question."""
    first = run_timing(at, asked_at=asked_at).first_event
    moved = run_timing([time - sooner for time in at], asked_at=asked_at).first_event
    assert first is not None
    assert moved is not None
    assert moved <= first

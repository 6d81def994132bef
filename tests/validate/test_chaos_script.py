"""Scripts: their order, their length, and what seeds make of them."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catenary.errors import UsageError
from catenary.validate.chaos import (
    OUTAGE,
    Action,
    Faults,
    Interruption,
    Script,
    Step,
    interruptions,
    random_cuts,
    rapid_cuts,
    together,
)

TUNNEL = Interruption(begins=(Action.STALL,), ends=(Action.GO_ON,), every=20.0, lasts=(1.0, 5.0))


def test_a_script_lasts_until_its_last_step_or_for_its_duration() -> None:
    script = Script((Step(0.5, Action.CUT), Step(2.0, Faults(delay=0.1))))
    assert script.duration == 2.0
    assert Script(script.steps, 10.0).duration == 10.0
    assert Script().duration == 0.0


@pytest.mark.parametrize(
    ("times", "duration", "said"),
    [
        ([2.0, 1.0], 0.0, "sort the steps"),
        ([-1.0], 0.0, "sort the steps"),
        ([float("nan")], 0.0, "sort the steps"),
        ([float("inf")], 0.0, "sort the steps"),
        ([2.0], 1.0, "after the end at 1.0 s"),
    ],
)
def test_what_cannot_be_played_is_refused(times: list[float], duration: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Script(tuple(Step(at, Action.CUT) for at in times), duration)


def test_a_script_can_be_kept_as_json() -> None:
    """And is what it was when it is read, or is refused."""
    script = Script((Step(0.5, Action.CUT), Step(2.0, Faults(delay=0.1))), 3.0)
    kept = msgspec.json.encode(script)
    assert msgspec.json.decode(kept, type=Script) == script
    with pytest.raises(UsageError, match="after the end"):
        msgspec.json.decode(kept.replace(b"3.0", b"1.0"), type=Script)


def test_scripts_are_joined_by_their_times() -> None:
    first = Script((Step(1.0, Action.CUT), Step(3.0, Action.CUT)), 4.0)
    second = Script((Step(2.0, Action.RESET), Step(3.0, Action.RESET)))
    joined = together(first, second)
    assert [step.at for step in joined.steps] == [1.0, 2.0, 3.0, 3.0]
    assert joined.steps[2].what is Action.CUT, "of one time the first script's comes first"
    assert joined.duration == 4.0
    assert together() == Script()


def test_rapid_cuts_follow_each_other_and_are_all_there() -> None:
    script = rapid_cuts(15, interval=0.2, seed=7)
    times = [step.at for step in script.steps]
    assert len(times) == 15
    assert script.duration == pytest.approx(3.2)
    assert all(0.1 <= after - before <= 0.3 for before, after in itertools.pairwise(times))
    assert {step.what for step in script.steps} == {Action.CUT, Action.RESET}
    assert rapid_cuts(seed=7) == rapid_cuts(seed=7) != rapid_cuts(seed=8)
    assert {step.what for step in rapid_cuts(reset=0.0).steps} == {Action.CUT}


def test_random_cuts_come_at_their_rate() -> None:
    script = random_cuts(1000.0, per_second=2.0, seed=7)
    assert len(script.steps) == pytest.approx(2000, rel=0.05)
    assert script.steps[-1].at < script.duration == 1000.0
    assert script == random_cuts(1000.0, per_second=2.0, seed=7)
    with pytest.raises(UsageError, match="per_second"):
        random_cuts(1.0, per_second=0)


@settings(derandomize=True, deadline=None)
@given(
    duration=st.floats(0.5, 1000.0),
    kinds=st.lists(st.sampled_from([OUTAGE, TUNNEL]), min_size=1, max_size=3),
    seed=st.integers(0, 10),
)
def test_interruptions_come_one_at_a_time_and_all_pass(
    duration: float, kinds: list[Interruption], seed: int
) -> None:
    """Each kind comes, begins when no other is under way, and is over before the end."""
    script = interruptions(duration, kinds, seed=seed)
    under_way: Interruption | None = None
    came, ended_at = set(), 0.0
    for step in script.steps:
        assert isinstance(step.what, Action)
        kind = TUNNEL if step.what in TUNNEL.begins + TUNNEL.ends else OUTAGE
        if step.what is kind.begins[0]:
            assert under_way is None
            under_way = kind
            came.add(kind.every)
        if step.what is kind.ends[-1]:
            assert under_way is kind
            under_way, ended_at = None, step.at
    assert under_way is None
    assert came == {kind.every for kind in kinds}
    shares = sum(max(1, round(duration / kind.every)) for kind in kinds)
    assert ended_at <= duration - 0.25 * duration / shares
    assert script.duration == duration
    assert script == interruptions(duration, kinds, seed=seed)


def test_interruptions_last_as_long_as_their_kind_says() -> None:
    steps = interruptions(2000.0, (TUNNEL,), seed=7).steps
    lengths = [end.at - begin.at for begin, end in zip(steps[::2], steps[1::2], strict=True)]
    assert len(lengths) == 100
    assert 1.0 <= min(lengths) < 1.3
    assert 4.7 < max(lengths) <= 5.0

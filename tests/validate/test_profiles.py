"""The networks that people carry about."""

from __future__ import annotations

import pytest

from catenary.validate.chaos import PROFILES, Action, Faults, Profile

profiles = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


def test_the_profiles_are_those_of_the_campaigns() -> None:
    assert list(PROFILES) == ["3g", "4g", "lift", "train", "ferry"]
    assert all(name == profile.name for name, profile in PROFILES.items())


@profiles
def test_a_profile_says_what_it_is_and_where_its_figures_come_from(profile: Profile) -> None:
    assert profile.description
    assert "chosen" in profile.source
    faults = profile.faults
    assert min(faults.delay, faults.jitter, faults.loss, faults.bytes_per_second or 0) > 0
    harmless = Faults().cut, Faults().corrupt, Faults().half_open
    assert (faults.cut, faults.corrupt, faults.half_open) == harmless


def test_the_delays_are_those_of_their_sources() -> None:
    """There and back: 300 ms on 3G, 70 ms on LTE, 558 ms by satellite."""
    round_trips = {name: 2 * profile.faults.delay for name, profile in PROFILES.items()}
    assert round_trips["3g"] == pytest.approx(0.3)
    assert round_trips["4g"] == pytest.approx(0.07)
    assert round_trips["ferry"] == pytest.approx(0.558)


@profiles
@pytest.mark.parametrize("duration", [3.0, 60.0, 3600.0])
def test_a_script_leaves_the_network_as_it_was(profile: Profile, duration: float) -> None:
    """Whatever is lost comes back before the end, and the same seed gives the same."""
    script = profile.script(7, duration)
    assert script.duration == duration
    is_stalled = is_refusing = False
    for step in script.steps:
        is_stalled = (is_stalled or step.what is Action.STALL) and step.what is not Action.GO_ON
        is_refusing = (is_refusing or step.what is Action.REFUSE) and step.what != Action.ACCEPT
    assert not is_stalled
    assert not is_refusing
    assert script == profile.script(7, duration)
    if script.steps:
        assert script != profile.script(8, duration)


@pytest.mark.parametrize(
    ("name", "befalls"),
    [
        ("3g", set()),
        ("4g", set()),
        ("lift", {Action.STALL, Action.GO_ON, Action.CHANGE_ADDRESS, Action.REFUSE}),
        ("train", {Action.STALL, Action.GO_ON, Action.CHANGE_ADDRESS}),
        ("ferry", {Action.HALF_OPEN, Action.REFUSE, Action.ACCEPT}),
    ],
)
def test_what_befalls_a_network_befalls_it_also_in_a_short_script(
    name: str, befalls: set[Action]
) -> None:
    assert befalls <= {step.what for step in PROFILES[name].script(1, 5.0).steps}
    assert befalls or not PROFILES[name].script(1, 5.0).steps

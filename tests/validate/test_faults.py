"""What a network does is described once, and what chance makes of it is drawn from a seed."""

from __future__ import annotations

import msgspec
import pytest

from catenary.errors import UsageError
from catenary.validate.chaos import CALM, LEVELS, Faults
from catenary.validate.chaos.faults import EARLY_BYTES, Ending, Fate

MANY = 4000


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("cut", 45, "goes from 0"),
        ("cut", -0.1, "goes from 0"),
        ("corrupt", float("nan"), "goes from 0"),
        ("loss", "0.1", "goes from 0"),
        ("reset", 1.01, "goes from 0"),
        ("cut_early", None, "goes from 0"),
        ("half_open", 2, "goes from 0"),
        ("refuse", 2, "goes from 0"),
        ("stall", 2, "goes from 0"),
        ("delay", -1, "is in seconds"),
        ("jitter", float("inf"), "is in seconds"),
        ("retransmit", float("nan"), "is in seconds"),
        ("stall_seconds", -1, "is in seconds"),
        ("bytes_per_second", 0, "more than 0, or None"),
        ("bytes_per_second_up", -5, "more than 0, or None"),
        ("idle_timeout", 0, "more than 0, or None"),
        ("lifetime", float("nan"), "more than 0, or None"),
        ("split_bytes", 0, "whole number of bytes"),
        ("split_bytes", 1.5, "whole number of bytes"),
        ("cut_within_bytes", 0, "whole number of bytes"),
        ("cut_within_bytes", None, "whole number of bytes"),
        ("corrupt_after_bytes", -1, "whole number of bytes"),
    ],
)
def test_what_cannot_be_is_refused_with_its_rule(field: str, value: object, rule: str) -> None:
    with pytest.raises(UsageError, match=f"^{field}=.*{rule}"):
        Faults(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=rule):
        msgspec.structs.replace(CALM, **{field: value})


def test_every_field_is_checked() -> None:
    """No field takes what is no number."""
    for field in Faults.__struct_fields__:
        with pytest.raises(UsageError, match=field):
            Faults(**{field: "many"})  # type: ignore[arg-type]


def test_faults_tell_what_differs_from_calm() -> None:
    assert str(CALM) == "calm"
    assert str(Faults(delay=0.1, split_bytes=1)) == "delay=0.1 split_bytes=1"


def test_the_levels_are_those_of_the_campaigns() -> None:
    assert set(LEVELS) == {"medium", "high", "latency", "corruption", "everything"}
    medium, high = LEVELS["medium"], LEVELS["high"]
    assert (medium.cut, medium.delay, medium.delay + medium.jitter) == (0.25, 0.05, 0.2)
    assert (high.cut, high.delay, high.delay + high.jitter, high.corrupt) == (0.45, 0.1, 0.5, 0.15)
    assert LEVELS["latency"] == Faults(delay=0.1, jitter=0.4)
    spared = LEVELS["corruption"].corrupt_after_bytes
    assert LEVELS["corruption"] == Faults(corrupt=0.3, corrupt_after_bytes=spared)


def fates(seed: int | str) -> list[Fate]:
    return [Fate.draw(seed, number) for number in range(MANY)]


def test_the_same_seed_has_the_same_fates_and_another_has_others() -> None:
    assert fates(7) == fates(7)
    assert fates(7) != fates(8)
    assert len(set(fates(7))) == MANY


def test_the_shares_are_those_of_the_faults() -> None:
    """Of many connections as many meet a fate as its probability says."""
    faults = Faults(cut=0.25, half_open=0.4, refuse=0.1, reset=0.75, cut_early=0.3)
    drawn = fates("shares")
    cut = [fate for fate in drawn if fate.is_cut(faults)]
    assert len(cut) / MANY == pytest.approx(0.25, abs=0.03)
    assert sum(fate.goes_silent(faults) for fate in drawn) / MANY == pytest.approx(
        0.75 * 0.4, abs=0.03
    )
    assert not any(fate.goes_silent(faults) for fate in cut)
    assert sum(fate.is_refused(faults) for fate in drawn) / MANY == pytest.approx(0.1, abs=0.02)
    resets = sum(fate.ending(faults) is Ending.RESET for fate in cut)
    assert resets / len(cut) == pytest.approx(0.75, abs=0.05)


def test_places_lie_within_reach_and_some_of_them_early() -> None:
    faults = Faults(cut=1.0, cut_within_bytes=20_000, cut_early=0.3)
    places = [fate.place_bytes(faults) for fate in fates("places")]
    assert min(places) >= 0
    assert 19_000 < max(places) < 20_000
    early = sum(place < EARLY_BYTES for place in places) / MANY
    assert early == pytest.approx(0.3 + 0.7 * EARLY_BYTES / 20_000, abs=0.03)
    near = msgspec.structs.replace(faults, cut_within_bytes=10)
    assert max(fate.place_bytes(near) for fate in fates("places")) == 9


def test_more_faults_hit_the_same_connections_and_further_ones() -> None:
    for fate in fates("more"):
        if fate.is_cut(Faults(cut=0.2)):
            assert fate.is_cut(Faults(cut=0.5))
        if fate.is_refused(Faults(refuse=0.2)):
            assert fate.is_refused(Faults(refuse=0.5, cut=1.0))

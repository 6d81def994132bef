"""Warnings that are few enough to be read."""

from __future__ import annotations

import logging

import pytest

from catenary.observe.alarms import COUNTED, OF_A_KIND, Alarms


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "catenary.monitor")
    return caplog


def test_the_same_is_said_once_in_a_while(said: pytest.LogCaptureFixture) -> None:
    """Of one subject; of another one, or another kind, it is news."""
    alarms = Alarms(repeat=300)
    alarms.warn("silence", "r1", 0, "r1 is silent", run_id="r1", user_id=None)
    alarms.warn("silence", "r1", 299, "r1 is silent")
    alarms.warn("silence", "r2", 299, "r2 is silent")
    alarms.warn("latency", "r1", 299, "r1 is late")
    alarms.warn("silence", "r1", 300, "r1 is silent again")
    assert said.messages == ["r1 is silent", "r2 is silent", "r1 is late", "r1 is silent again"]
    (first, *_) = said.records
    assert (first.levelname, first.name) == ("WARNING", "catenary.monitor")
    assert first.run_id == "r1"  # type: ignore[attr-defined]
    assert not hasattr(first, "user_id")


def test_a_storm_is_a_few_lines_and_a_number(said: pytest.LogCaptureFixture) -> None:
    """Five are named; those that were not are counted once each, and told with the next."""
    alarms = Alarms(repeat=300)
    for look in range(3):
        for number in range(100):
            alarms.warn("silence", f"r{number}", look, f"r{number} is silent")
    assert said.messages == [f"r{number} is silent" for number in range(OF_A_KIND)]
    alarms.warn("latency", "c1", 3, "c1 is late")
    alarms.warn("silence", "r50", 400, "r50 is silent")
    assert said.messages[-2:] == [
        "c1 is late",
        "r50 is silent (94 more of this kind were not logged)",
    ]


def test_whether_it_is_due_is_known_before() -> None:
    """For warnings whose words cost something."""
    alarms = Alarms(repeat=300)
    assert alarms.is_due("silence", "r1", 0)
    alarms.warn("silence", "r1", 0, "r1 is silent")
    assert not alarms.is_due("silence", "r1", 1)
    assert alarms.is_due("silence", "r1", 300)


def test_what_is_remembered_is_bounded() -> None:
    """However many subjects there are."""
    alarms = Alarms(repeat=300)
    for number in range(3 * COUNTED):
        alarms.warn("silence", f"r{number}", 0, "silent")
    assert len(alarms._said) == OF_A_KIND
    assert len(alarms._unnamed["silence"]) == COUNTED

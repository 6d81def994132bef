"""Silences, and what was going on meanwhile."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from catenary.validate.scoring import (
    Received,
    Silence,
    received_events,
    run_silences,
    user_silences,
)
from tests.validate.scoring.making import event, fixed, histories, run_of

USER = "user_123"


def longest(silences: list[Silence]) -> float:
    return max((silence.seconds for silence in silences), default=0.0)


def test_a_silence_says_from_when_to_when_between_what_and_who_worked() -> None:
    received = run_of(10.0, 11.0, 18.0)
    (silence,) = user_silences(USER, received)
    assert (silence.began, silence.ended, silence.seconds) == (11.0, 18.0, 7.0)
    assert silence.before == received[1].event
    assert silence.after == received[2].event
    assert silence.open_runs == ("r1",)
    assert silence.is_run_open
    text = str(silence)
    for part in ("user_123", "7.0 s", "app.note (k3:2)", "agent_completed (k3:3)", "open: r1"):
        assert part in text


def test_a_time_as_long_as_the_limit_is_none() -> None:
    """More than the limit is."""
    received = run_of(10.0, 15.0)
    assert user_silences(USER, received) == []
    assert len(user_silences(USER, received, limit=4.9)) == 1


def test_after_its_end_no_run_is_open() -> None:
    """Then nobody waits, and the silence says so."""
    received = run_of(10.0, 11.0) + run_of(30.0, 31.0, run_id="r2")
    (silence,) = user_silences(USER, received)
    assert not silence.is_run_open
    assert "open" not in str(silence)


def test_the_edges_of_the_watch_count() -> None:
    """Before the first event, after the last, and where nothing came at all."""
    received = run_of(10.0, 11.0, end=False)
    before, after = user_silences(USER, received, since=0.0, until=20.0)
    assert (before.began, before.before, before.is_run_open) == (0.0, None, False)
    assert (after.ended, after.after, after.open_runs) == (20.0, None, ("r1",))
    (nothing,) = user_silences(USER, [], since=0.0, until=20.0)
    assert (nothing.seconds, nothing.before, nothing.after) == (20.0, None, None)
    assert user_silences(USER, []) == []


def test_a_run_is_silent_while_another_one_speaks() -> None:
    """The user saw something, and not of this run."""
    received = sorted(
        run_of(10.0, 20.0, run_id="r1") + run_of(11.0, 14.0, 17.0, 19.5, run_id="r2"),
        key=lambda each: each.at,
    )
    assert user_silences(USER, received) == []
    (silence,) = run_silences(USER, "r1", received)
    assert (silence.run_id, silence.began, silence.ended) == ("r1", 10.0, 20.0)
    assert run_silences(USER, "r2", received) == []


def test_a_run_that_ended_is_silent_no_more() -> None:
    """One that is open is, until the watch ends."""
    assert run_silences(USER, "r1", run_of(10.0, 11.0), until=99.0) == []
    (silence,) = run_silences(USER, "r1", run_of(10.0, 11.0, end=False), until=99.0)
    assert silence.seconds == 88.0
    assert run_silences(USER, "r1", run_of(10.0, 11.0, end=False)) == []
    late = Received(event("app.note", 3), 50.0)
    assert run_silences(USER, "r1", [*run_of(10.0, 11.0), late], until=99.0) == []
    assert run_silences(USER, "r3", run_of(10.0, 11.0), until=99.0) == []


def test_heartbeats_are_no_events() -> None:
    """A connection that lives is not an agent that speaks."""

    def message(type: str, **fields: Any) -> dict[str, Any]:
        return {"type": type, **fields}

    received = received_events(
        [
            (message("connected", position="k3:0"), 0.0),
            (message("agent_started", id="k3:1", seq=1, run_id="r1"), 1.0),
            (message("heartbeat", position="k3:1", timestamp=1), 4.0),
            (message("heartbeat", position="k3:1", timestamp=2), 8.0),
            (message("agent_completed", id="k3:2", seq=2, run_id="r1"), 9.0),
        ]
    )
    assert [each.at for each in received] == [1.0, 9.0]
    (silence,) = user_silences(USER, received)
    assert silence.seconds == 8.0


@fixed
@given(histories(), st.floats(0, 1), st.sampled_from([None, "r1", "r2"]))
def test_an_event_more_never_lengthens_a_silence(
    received: list[Received], where: float, run_id: str | None
) -> None:
    """Neither the longest, nor all of them together; for the user and for each run."""
    begin, end = received[0].at, received[-1].at
    more = Received(event("agent_delta", 99, run_id=run_id, data={"delta": "x"}), 0)
    more = more._replace(at=begin + where * (end - begin))
    grown = sorted([*received, more], key=lambda each: each.at)
    before = user_silences(USER, received, since=0, until=100)
    after = user_silences(USER, grown, since=0, until=100)
    assert longest(after) <= longest(before)
    assert sum(each.seconds for each in after) <= sum(each.seconds for each in before) + 1e-9
    for run in ("r1", "r2"):
        own = [each.at for each in received if each.event.run_id == run]
        if run == run_id and not (own and own[0] <= more.at <= own[-1]):
            continue
        runs_before = run_silences(USER, run, received, until=100)
        runs_after = run_silences(USER, run, grown, until=100)
        assert longest(runs_after) <= longest(runs_before)


@fixed
@given(histories(), st.floats(0.1, 50))
def test_every_silence_is_one(received: list[Received], limit: float) -> None:
    """Longer than the limit, within the watch, and no event came inside it."""
    for silence in user_silences(USER, received, limit=limit, since=0, until=100):
        assert silence.seconds > limit
        assert 0 <= silence.began < silence.ended <= 100
        assert not [each for each in received if silence.began < each.at < silence.ended]

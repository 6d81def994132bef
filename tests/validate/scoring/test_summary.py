"""What each user saw, in figures."""

from __future__ import annotations

import pytest
from hypothesis import given

from catenary.validate.scoring import Received, content_score, score_users
from tests.validate.scoring.making import event, fixed, histories, run_of

GOOD = {"thinking": "Looking for old bridges"}


def test_healthy_silent_and_absent_users_are_told_apart() -> None:
    """A healthy user beside a slow one and one who got nothing: each has figures of their own."""
    healthy = run_of(*(10 + n / 2 for n in range(20)))
    slow = [
        Received(event("agent_thinking", 1, user_id="user_456", data=GOOD), 10.0),
        Received(event("agent_thinking", 2, user_id="user_456", data={"thinking": "…"}), 18.0),
    ]
    scores = score_users([*slow, *healthy], users=["user_789"], since=10.0, until=20.0)
    assert set(scores) == {"user_123", "user_456", "user_789"}
    assert scores["user_123"].silences == ()
    assert scores["user_123"].timing == 5
    assert scores["user_123"].waited_in_silence == 0
    worse = scores["user_456"]
    assert (worse.events, worse.content, worse.timing) == (2, 3.0, 1.0)
    assert [silence.seconds for silence in worse.silences] == [8.0]
    assert worse.waited_in_silence == 8.0
    (weak,) = worse.weakest
    assert (weak.score, weak.event.seq) == (1, 2)
    assert str(weak).startswith("agent_thinking (k3:2) scores 1: no thinking that says something, ")
    absent = scores["user_789"]
    assert (absent.events, absent.content, absent.timing, absent.runs) == (0, None, None, ())
    assert [silence.seconds for silence in absent.silences] == [10.0]


def test_a_run_is_summed_up() -> None:
    """Its agent, its end, its events, and its own silences."""
    received = run_of(1.0, 2.0, 9.0) + run_of(9.0, 9.5, run_id="r2", end=False, agent_name=None)
    score = score_users(received, until=10.0)["user_123"]
    first, second = score.runs
    assert (first.run_id, first.agent_name, first.end) == ("r1", "scout", "agent_completed")
    assert (first.events, [silence.seconds for silence in first.silences]) == (3, [7.0])
    assert (second.run_id, second.agent_name, second.end) == ("r2", None, None)
    assert second.timing.longest_gap == 0.5


def test_an_open_run_is_timed_until_the_watch_ends() -> None:
    """It may say nothing more."""
    (run,) = score_users(run_of(1.0, 2.0, end=False), until=32.0)["user_123"].runs
    assert (run.timing.longest_gap, run.timing.score) == (30.0, 1)


def test_the_first_event_is_timed_from_the_users_message() -> None:
    """That of its thread, for the run that it began, and for no other one."""

    def asks(at: float, thread_id: str = "t1") -> Received:
        return Received(event("user_message", run_id=None, thread_id=thread_id), at)

    received = [
        asks(1.0),
        asks(2.5, "t2"),
        *run_of(3.0, 3.5),
        *run_of(3.6, 3.8, run_id="child"),
        asks(9.0),
        *run_of(9.5, 9.9, run_id="again"),
    ]
    runs = score_users(received)["user_123"].runs
    assert {run.run_id: run.timing.first_event for run in runs} == {
        "r1": 2.0,
        "child": None,
        "again": 0.5,
    }


def test_many_good_deltas_do_not_hide_a_poor_tool() -> None:
    """Each type of event counts as much as another."""
    delta = {"delta": "x", "message_id": "m"}
    received = [Received(event("agent_delta", seq, data=delta), seq / 10) for seq in range(1, 100)]
    received.append(Received(event("tool_completed", 100, data={}), 10.0))
    score = score_users(received)["user_123"]
    assert score.content == 3.0
    assert [weak.event.type for weak in score.weakest] == ["tool_completed"]


@fixed
@given(histories())
def test_means_lie_between_their_parts(received: list[Received]) -> None:
    """A user's content between the worst and the best event, timing between the runs'."""
    score = score_users(received, until=100.0)["user_123"]
    each = [content_score(one.event).score for one in received]
    assert score.content is not None
    assert min(each) - 1e-9 <= score.content <= max(each) + 1e-9
    assert score.events == len(received)
    if score.runs:
        timings = [run.timing.score for run in score.runs]
        assert score.timing == pytest.approx(sum(timings) / len(timings))
    assert sum(run.events for run in score.runs) == len(
        [one for one in received if one.event.run_id is not None]
    )

from __future__ import annotations

from typing import Any

from catenary.events import WebSocketEvent
from catenary.wires.turn import Ending, Part, Turn


class Thread:
    """The events of a thread, one after the other."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.seq = 0

    def say(
        self, type: str, run_id: str | None = None, parent: str | None = None, **data: Any
    ) -> Part | None:
        self.seq += 1
        return self.turn.take(
            WebSocketEvent(
                type=type,
                id=f"k3:{self.seq}",
                seq=self.seq,
                run_id=run_id,
                parent_run_id=parent,
                timestamp=self.seq,
                data=data,
            )
        )


def test_a_turn_is_what_answers_its_message() -> None:
    """Whatever else happens in the thread, before, meanwhile and after."""
    turn = Turn(message_id="msg_1")
    thread = Thread(turn)
    thread.say("agent_started", "r0")
    thread.say("user_message", message_id="msg_1")
    thread.say("user_message", message_id="msg_2")
    assert thread.say("agent_started", "r2", in_reply_to="msg_2") is None
    assert thread.say("agent_started", "r1", in_reply_to="msg_1") is Part.START
    assert thread.say("agent_delta", "r2", delta="no") is None
    assert thread.say("agent_delta", "r0", delta="no") is None
    assert thread.say("agent_delta", "r1", delta="yes") is Part.OWN
    assert thread.say("app.note") is None
    assert thread.say("agent_completed", "r1") is Part.END
    assert thread.say("agent_started", "r3", in_reply_to="msg_3") is None
    assert (turn.message_id, turn.ending, turn.stopped_at) == (
        "r1",
        Ending.COMPLETED,
        thread.seq - 1,
    )


def test_a_run_that_does_not_know_what_it_answers_is_the_next_one() -> None:
    """As when a worker of a queue starts it."""
    thread = Thread(Turn(message_id="msg_1"))
    assert thread.say("agent_started", "r0") is None
    thread.say("user_message", message_id="msg_1")
    assert thread.say("agent_started", "r1") is Part.START
    assert thread.say("agent_started", "r2") is None


def test_sub_agents_of_a_turn_are_its_own() -> None:
    """At any depth, and with their questions; those of others are not."""
    turn = Turn(run_id="r1")
    thread = Thread(turn)
    thread.say("agent_started", "r1")
    assert thread.say("agent_started", "c1", "r1") is Part.CHILD
    assert thread.say("agent_started", "c2", "c1") is Part.CHILD
    assert thread.say("agent_started", "c3", "r9") is None
    assert (turn.parent_of("c1"), turn.parent_of("c2")) == (None, "c1")
    assert thread.say("input_requested", "c2", request_id="q1") is Part.END
    assert turn.is_stopped
    assert thread.say("input_resolved", "c2", request_id="q1", by="me") is Part.ANSWER
    assert not turn.is_stopped


def test_a_run_that_waits_stops_its_turn_at_the_question() -> None:
    """Each question stops it at its own place; it goes on once all are answered."""
    turn = Turn(run_id="r1")
    thread = Thread(turn)
    thread.say("agent_started", "r1")
    thread.say("input_requested", "r1", request_id="q1")
    thread.say("input_requested", "r1", request_id="q2")
    assert [place.seq for place in turn.asked_at.values()] == [2, 3]
    assert (turn.ending, turn.next_stop) == (Ending.WAITING, 3)
    thread.say("input_resolved", "r1", request_id="q2", by="me")
    assert turn.is_stopped
    thread.say("input_resolved", "r1", request_id="q1", by="me")
    assert (turn.ending, turn.next_stop) == (None, 4)
    assert thread.say("input_resolved", "r1", request_id="q1", by="me") is None


def test_a_suspended_run_stops_its_turn_at_its_end() -> None:
    """All its questions at one place; the run that continues it is the same turn."""
    turn = Turn(run_id="r1")
    thread = Thread(turn)
    thread.say("agent_started", "r1")
    assert thread.say("input_requested", "r1", request_id="q1", suspends=True) is Part.OWN
    assert thread.say("input_requested", "r1", request_id="q2", suspends=True) is Part.OWN
    assert thread.say("agent_completed", "r1", outcome="suspended") is Part.END
    assert {place.seq for place in turn.asked_at.values()} == {4}
    thread.say("input_resolved", request_id="q1", by="me")
    thread.say("input_resolved", request_id="q2", by="me")
    assert turn.ending is None
    assert thread.say("agent_started", "r2", continues_run_id="r1") is Part.START
    assert (turn.message_id, turn.run_id) == ("r1", "r2")


def test_a_question_that_nobody_answered_ends_a_suspended_turn() -> None:
    """Nothing follows it."""
    turn = Turn(run_id="r1")
    thread = Thread(turn)
    thread.say("agent_started", "r1")
    thread.say("input_requested", "r1", request_id="q1", suspends=True)
    thread.say("agent_completed", "r1", outcome="suspended")
    thread.say("input_resolved", request_id="q1", by="expiry")
    assert turn.ending is Ending.COMPLETED

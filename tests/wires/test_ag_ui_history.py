"""What a thread has said, as messages of AG-UI."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings

from catenary.events import WebSocketEvent
from catenary.wires.ag_ui import AgUiTurn, messages_of
from catenary.wires.ag_ui_history import AgUiHistory
from catenary.wires.turn import Turn
from tests.wires.acting import ACTS, acted


def history_of(events: list[WebSocketEvent]) -> AgUiHistory:
    history = AgUiHistory("t1")
    for event in events:
        history.take(event)
    return history


@given(ACTS)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_turn_has_the_messages_of_who_read_it(acts: list[tuple[str, Any]]) -> None:
    """After the question, under the same ids, however text was merged; other agents speak too."""
    made = acted(acts)
    encoder = AgUiTurn(Turn(message_id="msg_1"), thread_id="t1", run_id="run-a")
    seen = messages_of([frame for event in made.events for frame in encoder.take(event)])
    for events in (made.events, made.merged):
        history = history_of(events)
        question, *told = history.messages()
        assert question == {"id": "msg_1", "role": "user", "content": "why?"}
        assert [message for message in told if message in seen] == seen
        assert [m for m in told if m not in history.messages(without="r1")] == seen


def event(seq: int, type: str, run_id: str | None = None, **fields: Any) -> WebSocketEvent:
    data = fields.pop("data", {})
    return WebSocketEvent(
        type=type, id=f"k3:{seq}", seq=seq, user_id="user_123", thread_id="t1",
        run_id=run_id, timestamp=seq, data=data, **fields,
    )  # fmt: skip


def delta(seq: int, run_id: str, text: str) -> WebSocketEvent:
    return event(seq, "agent_delta", run_id, data={"message_id": f"m_{run_id}", "delta": text})


def test_runs_that_go_on_belong_to_the_turn_and_those_of_sub_agents_too() -> None:
    """Without the turn nothing of them is left; the user's messages have their client's ids."""
    asked = {"message_id": "msg_1", "client_message_id": "q1", "content": "why?"}
    history = history_of(
        [
            event(1, "user_message", data=asked),
            event(2, "agent_started", "r1"),
            delta(3, "r1", "One. "),
            event(4, "agent_started", "c1", parent_run_id="r1"),
            delta(5, "c1", "Sub. "),
            event(6, "agent_completed", "c1"),
            event(7, "agent_completed", "r1", data={"outcome": "suspended"}),
            event(8, "agent_started", "r2", data={"continues_run_id": "r1"}),
            delta(9, "r2", "Two. "),
            event(10, "agent_started", "r3"),
            delta(11, "r3", "Other. "),
            delta(12, "r2", "End."),
            delta(13, "gone", "of a run whose start is no longer kept"),
        ]
    )
    said = [(message["role"], message["content"]) for message in history.messages()]
    assert said == [
        ("user", "why?"),
        ("assistant", "One. "),
        ("assistant", "Sub. "),
        ("assistant", "Two. End."),
        ("assistant", "Other. "),
    ]
    left = [message["id"] for message in history.messages(without="r1")]
    assert left == ["q1", "m_r3"]

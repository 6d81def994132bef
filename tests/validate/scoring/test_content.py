"""What an event is worth."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.events import EventType, WebSocketEvent
from catenary.validate.scoring import content_score
from tests.validate.scoring.making import datas, event, events, fields, fixed, texts, values, words

WHOLE: dict[str, dict[str, Any]] = {
    "agent_started": {"task": "find bridges"},
    "agent_thinking": {"thinking": "Looking for old bridges"},
    "agent_delta": {"delta": " ", "message_id": "m1"},
    "tool_executing": {"tool_name": "search", "tool_call_id": "c1", "tool_input": {}},
    "tool_completed": {
        "tool_name": "search", "tool_call_id": "c1", "success": False, "error": "no network",
        "duration_ms": 0,
    },
    "agent_completed": {"result": {"answer": 42}, "duration_ms": 12.5},
    "agent_error": {"message": "The search is down", "code": "search_down"},
    "agent_cancelled": {"reason": "changed my mind", "by": "user"},
    "progress_update": {"message": "halfway there", "percentage": 50},
    "user_message": {"content": "Which?", "message_id": "m1", "client_message_id": "x"},
    "input_requested": {"question": "Buy these two bridges?", "kind": "approval", "request_id": "q"},
    "input_resolved": {"request_id": "q", "answer": False, "by": "user"},
    "erased": {},
    "app.note": {"x": 0},
}  # fmt: skip


@pytest.mark.parametrize("type", WHOLE)
def test_an_event_with_everything_scores_five(type: str) -> None:
    """And nothing is missed. A tool that failed and took no time is told as well as any."""
    assert content_score(event(type, data=WHOLE[type])) == (5, ())


def test_every_built_in_type_has_a_rubric() -> None:
    assert set(map(str, EventType)) <= set(WHOLE)


@pytest.mark.parametrize("type", [type for type in WHOLE if type != "erased"])
def test_an_event_with_nothing_scores_one(type: str) -> None:
    """What it lacks is said, the indispensable first."""
    empty = WebSocketEvent(type=type, id="k3:1", seq=1)
    score, lacks = content_score(empty)
    assert score == 1
    assert len(lacks) >= 3


@pytest.mark.parametrize(
    ("type", "data", "score", "lack"),
    [
        ("agent_thinking", {"thinking": "Thinking..."}, 1, "thinking that says something"),
        ("agent_thinking", {"thinking": "Searching"}, 4, "thinking with 3 telling words"),
        ("agent_thinking", {"thinking": None}, 1, "thinking that says something"),
        ("agent_thinking", {"thinking": 7}, 1, "thinking that says something"),
        ("tool_executing", {"tool_name": "search", "tool_call_id": "c"}, 4, "tool_input"),
        ("tool_executing", {"tool_call_id": "c", "tool_input": {}}, 1, "tool_name"),
        ("tool_completed", {"tool_call_id": "c", "success": True}, 3, "tool_output or error"),
        ("tool_completed", {**WHOLE["tool_completed"], "duration_ms": -1}, 4, "duration_ms"),
        ("tool_completed", {**WHOLE["tool_completed"], "duration_ms": True}, 4, "duration_ms"),
        ("agent_completed", {"result": {"answer": ["", {}]}, "duration_ms": 1}, 4, "result"),
        ("agent_error", {"message": " ", "code": "x"}, 1, "message that says something"),
        ("agent_delta", {"delta": "", "message_id": "m"}, 1, "delta"),
        ("app.note", {"x": ""}, 1, "data"),
        ("note", {"x": 1}, 4, "a type with a dot"),
    ],
)
def test_what_an_event_lacks_costs_and_is_said(
    type: str, data: dict[str, Any], score: int, lack: str
) -> None:
    """Fillers are no text, empty things no result, and a boolean is no duration."""
    found = content_score(event(type, data=data))
    assert found.score == score
    assert lack in found.lacks


def test_a_suspended_run_needs_no_result() -> None:
    """It goes on with the answer."""
    data = {"outcome": "suspended", "duration_ms": 1}
    assert content_score(event("agent_completed", data=data)).score == 5


@fixed
@given(events())
def test_a_score_is_from_one_to_five(given: WebSocketEvent) -> None:
    """Whatever an event holds, and it is five exactly if nothing lacks."""
    score, lacks = content_score(given)
    assert 1 <= score <= 5
    assert (score == 5) == (lacks == ())


@fixed
@given(events(), fields, values)
def test_a_field_more_never_lowers_a_score(given: WebSocketEvent, name: str, value: Any) -> None:
    """What was absent and is there now can only help."""
    if name in given.data:
        return
    richer = event_with(given, {**given.data, name: value})
    assert content_score(richer).score >= content_score(given).score


@fixed
@given(events(), st.lists(words, min_size=1), datas)
def test_words_more_never_lower_a_score(
    given: WebSocketEvent, more: list[str], data: dict[str, Any]
) -> None:
    """In any of its texts, also deep inside."""
    base = event_with(given, {**given.data, **data})
    longer = event_with(base, {name: _longer(value, more) for name, value in base.data.items()})
    # The one value that is compared as a whole is the outcome.
    if base.data.get("outcome") == longer.data.get("outcome"):
        assert content_score(longer).score >= content_score(base).score


@fixed
@given(events(), texts)
def test_ids_more_never_lower_a_score(given: WebSocketEvent, name: str) -> None:
    """A run, a thread or an agent's name that was not told."""
    richer = WebSocketEvent(
        type=given.type,
        id=given.id,
        seq=given.seq,
        user_id=given.user_id,
        thread_id=given.thread_id or name,
        run_id=given.run_id or name,
        agent_name=given.agent_name or name,
        timestamp=given.timestamp,
        data=given.data,
    )
    assert content_score(richer).score >= content_score(given).score


def _longer(value: Any, more: list[str]) -> Any:
    if isinstance(value, str):
        return " ".join([value, *more])
    if isinstance(value, list):
        return [_longer(inner, more) for inner in value]
    if isinstance(value, dict):
        return {name: _longer(inner, more) for name, inner in value.items()}
    return value


def event_with(given: WebSocketEvent, data: dict[str, Any]) -> WebSocketEvent:
    return event(
        given.type,
        data=data,
        thread_id=given.thread_id,
        run_id=given.run_id,
        agent_name=given.agent_name,
    )

"""A run's events fold to one state, however they come; what it is, `protocol/cases` says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.errors import RecordCorrupt, UsageError
from catenary.events import WebSocketEvent
from catenary.fold import (
    TOOLS_KEPT,
    RunFold,
    RunState,
    decode_state,
    encode_state,
)

CASES = Path(__file__).parent.parent / "protocol" / "cases"

Step = tuple[str, dict[str, Any]]

START: Step = ("agent_started", {"task": {"q": "bridges"}})


def event(seq: int, type: str, data: dict[str, Any] | None = None, **fields: Any) -> WebSocketEvent:
    about: dict[str, Any] = {
        "user_id": "user_123", "thread_id": "t1", "run_id": "r1", "agent_name": "researcher",
        "timestamp": 1000 + seq, **fields,
    }  # fmt: skip
    return WebSocketEvent(type=type, id=f"k3:{seq}", seq=seq, data=data or {}, **about)


def delta(text: str, message_id: str = "m1", part: str = "text") -> Step:
    return "agent_delta", {"message_id": message_id, "part": part, "delta": text}


def events(*steps: Step) -> list[WebSocketEvent]:
    return [event(seq, type, data) for seq, (type, data) in enumerate(steps, start=1)]


def folded(given_events: list[WebSocketEvent], state: RunState | None = None) -> RunState:
    fold = RunFold(state)
    for one in given_events:
        fold.apply(one)
    return fold.state


def fold_cases() -> Iterator[Any]:
    for path in sorted(CASES.glob("fold*.json")):
        for case in json.loads(path.read_text())["cases"]:
            # A state has no order.
            if "order" not in case.get("requires", []):
                yield pytest.param(case, id=case["name"])


def case_event(fields: dict[str, Any]) -> WebSocketEvent:
    seq, type = fields["seq"], fields["type"]
    others = {name: value for name, value in fields.items() if name not in {"seq", "type", "data"}}
    return event(seq, type, fields["data"], **others)


@pytest.mark.parametrize("way", ["plainly", "twice", "restored"])
@pytest.mark.parametrize("case", list(fold_cases()))
def test_the_state_is_what_the_cases_say(case: dict[str, Any], way: str) -> None:
    """Plainly, with every event given twice, and with the state saved and restored between."""
    fold = RunFold()
    for step in case["steps"]:
        if "expect_state" in step:
            assert fold.state == decode_state(json.dumps(step["expect_state"]).encode())
            continue
        if way == "restored" and fold.is_begun:
            fold = RunFold(decode_state(encode_state(fold.state)))
        given_event = case_event(step["fold"])
        if step.get("fails"):
            with pytest.raises(UsageError):
                fold.apply(given_event)
            continue
        fold.apply(given_event)
        if way == "twice":
            fold.apply(given_event)


def test_text_is_that_of_each_message_in_turn() -> None:
    state = folded(
        events(START, delta("Hmm", part="reasoning"), delta("A"), delta("X", "m2"), delta("B"))
    )
    assert (state.text, state.reasoning) == ("ABX", "Hmm")


def tool(call: str, **end: Any) -> list[Step]:
    about = {"tool_name": "search", "tool_call_id": call}
    begin: Step = ("tool_executing", {**about, "tool_input": {"q": call}})
    return [begin, ("tool_completed", {**about, **end})] if end else [begin]


def test_ended_tools_are_bounded_and_open_ones_stay() -> None:
    calls = [step for n in range(TOOLS_KEPT + 3) for step in tool(f"c{n}", success=True)]
    state = folded(events(START, *tool("open"), *calls))
    assert len(state.tools) == TOOLS_KEPT + 1
    assert (state.tools[0].tool_call_id, state.tools[1].tool_call_id) == ("open", "c3")
    assert state.tools_dropped == 3


def test_a_run_is_open_until_an_end_was_folded() -> None:
    begun = folded(events(START))
    assert begun.is_open
    for end in ("agent_completed", "agent_error", "agent_cancelled"):
        assert not folded(events(START, (end, {}))).is_open


@pytest.mark.parametrize("fields", [{"run_id": "r2"}, {"run_id": None}])
def test_event_of_another_run_is_refused(fields: dict[str, Any]) -> None:
    fold = RunFold(folded(events(START)))
    with pytest.raises(UsageError, match="r1"):
        fold.apply(event(2, "agent_started", **fields))
    assert fold.state == folded(events(START))


def test_fold_begins_with_an_event_of_a_run() -> None:
    fold = RunFold()
    with pytest.raises(UsageError, match="no run"):
        fold.apply(event(1, "user_message", run_id=None))
    assert not fold.is_begun
    with pytest.raises(UsageError, match="nothing was folded"):
        _ = fold.state


def test_merged_delta_seen_in_part_is_refused() -> None:
    fold = RunFold(folded(events(START, delta("a"), delta("b"))))
    with pytest.raises(UsageError, match="2-4"):
        fold.apply(event(4, *delta("abc"), from_seq=2))
    assert fold.state.text == "ab"


def test_state_does_not_change_when_more_is_folded() -> None:
    fold = RunFold()
    fold.apply(event(1, *START))
    fold.apply(event(2, *delta("a")))
    before = fold.state
    fold.apply(event(3, *delta("b")))
    assert (before.text, fold.state.text) == ("a", "ab")


def test_stored_state_that_cannot_be_read_is_corrupt() -> None:
    for stored in (b"{", b'{"status":"running"}', b"\xff"):
        with pytest.raises(RecordCorrupt, match="folded state"):
            decode_state(stored)


calls = st.sampled_from(["a", "b"])
json_values = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.booleans(), max_size=3)
deltas = st.builds(
    delta,
    st.text(max_size=4),
    st.sampled_from(["m1", "m2"]),
    st.sampled_from(["text", "reasoning"]),
)
steps = st.one_of(
    deltas, deltas, deltas,
    st.builds(lambda text: ("agent_thinking", {"thinking": text}), st.text(max_size=4)),
    st.builds(lambda value: ("progress_update", {"percentage": value}), st.integers(0, 100)),
    st.builds(lambda call: tool(call)[0], calls),
    st.builds(lambda call, out: tool(call, success=True, tool_output=out)[1], calls, json_values),
    st.builds(lambda value: ("app.note", {"value": value}), json_values),
)  # fmt: skip
ends = st.sampled_from(
    [
        ("agent_completed", {"result": 1, "outcome": "success"}),
        ("agent_error", {"code": "c", "message": "m"}),
        ("agent_cancelled", {}),
    ]
)


@st.composite
def histories(draw: st.DrawFn) -> list[WebSocketEvent]:
    """Events of one run, with numbers of other runs between them."""
    taken = [START, *draw(st.lists(steps, max_size=25)), *draw(st.lists(ends, max_size=1))]
    gaps = draw(st.lists(st.integers(1, 3), min_size=len(taken), max_size=len(taken)))
    return [
        event(seq, type, data)
        for seq, (type, data) in zip(itertools.accumulate(gaps), taken, strict=True)
    ]


def merged(history: list[WebSocketEvent], joins: list[bool]) -> list[WebSocketEvent]:
    """Join neighbouring deltas of one message and part where ``joins`` says so."""
    done: list[WebSocketEvent] = []
    for one, is_joined in zip(history, joins, strict=False):
        last = done[-1] if done else one
        mergeable = {one.type, last.type} == {"agent_delta"} and all(
            one.data[name] == last.data[name] for name in ("message_id", "part")
        )
        if done and is_joined and mergeable:
            data = {**one.data, "delta": last.data["delta"] + one.data["delta"]}
            first = last.from_seq or last.seq
            done[-1] = msgspec.structs.replace(one, from_seq=first, data=data)
        else:
            done.append(one)
    return done


@given(histories(), st.lists(st.integers(0, 27), max_size=4))
def test_saving_and_restoring_in_between_changes_nothing(
    history: list[WebSocketEvent], cuts: list[int]
) -> None:
    state: RunState | None = None
    bounds = [0, *sorted(cuts), len(history)]
    for begin, end in itertools.pairwise(bounds):
        if history[begin:end]:
            state = folded(history[begin:end], state)
            state = decode_state(encode_state(state))
    assert state == folded(history)


@given(histories(), st.lists(st.booleans(), min_size=27, max_size=27))
def test_merging_adjacent_deltas_changes_nothing(
    history: list[WebSocketEvent], joins: list[bool]
) -> None:
    assert folded(merged(history, joins)) == folded(history)


@given(histories(), st.integers(0, 27), st.integers(0, 27))
def test_giving_events_again_changes_nothing(
    history: list[WebSocketEvent], begin: int, end: int
) -> None:
    assert folded([*history[:end], *history[begin:end], *history[end:]]) == folded(history)

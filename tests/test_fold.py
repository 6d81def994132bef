"""A run's events fold to one state, however they come."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.errors import RecordCorrupt, UsageError
from catenary.events import WebSocketEvent
from catenary.fold import (
    TOOLS_KEPT,
    MessageState,
    RunFailure,
    RunFold,
    RunState,
    RunStatus,
    ToolState,
    ToolStatus,
    decode_state,
    encode_state,
)

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


def test_start_says_whose_run_it_is() -> None:
    state = folded([event(7, "agent_started", {"task": "t"}, parent_run_id="r0")])
    assert state == RunState(
        run_id="r1", user_id="user_123", thread_id="t1", agent_name="researcher",
        parent_run_id="r0", task="t", started_at=1007, first_seq=7, last_seq=7,
    )  # fmt: skip
    assert state.is_open


def test_text_is_that_of_each_message_in_turn() -> None:
    state = folded(
        events(
            START, delta("Hmm", part="reasoning"), delta("A"), delta("X", "m2"), delta("B"),
            ("agent_delta", {"message_id": "m2", "part": "tool_input", "tool_call_id": "c", "delta": "{"}),
        )
    )  # fmt: skip
    assert (state.text, state.reasoning) == ("ABX", "Hmm")
    assert state.messages == (
        MessageState(message_id="m1", part="reasoning", text="Hmm"),
        MessageState(message_id="m1", text="AB"),
        MessageState(message_id="m2", text="X"),
        MessageState(message_id="m2", part="tool_input", tool_call_id="c", text="{"),
    )


def tool(call: str, **end: Any) -> list[Step]:
    about = {"tool_name": "search", "tool_call_id": call}
    begin: Step = ("tool_executing", {**about, "tool_input": {"q": call}})
    return [begin, ("tool_completed", {**about, **end})] if end else [begin]


def test_tools_are_open_then_succeed_or_fail() -> None:
    state = folded(
        events(
            START,
            *tool("a", success=True, tool_output=[1], duration_ms=2.5),
            *tool("b", success=False, error="no"),
            *tool("c"),
        )
    )
    assert state.tools == (
        ToolState(
            tool_call_id="a", tool_name="search", tool_input={"q": "a"}, tool_output=[1],
            status=ToolStatus.SUCCEEDED, duration_ms=2.5,
        ),
        ToolState(
            tool_call_id="b", tool_name="search", tool_input={"q": "b"}, error="no",
            status=ToolStatus.FAILED,
        ),
        ToolState(tool_call_id="c", tool_name="search", tool_input={"q": "c"}),
    )  # fmt: skip


def test_call_id_used_again_is_a_second_call() -> None:
    state = folded(events(START, *tool("a", success=True), *tool("a", success=False)))
    assert [one.status for one in state.tools] == [ToolStatus.SUCCEEDED, ToolStatus.FAILED]


def test_end_of_a_call_whose_start_was_not_seen_is_listed() -> None:
    state = folded(events(START, tool("a", success=True)[1], tool("a", success=False)[1]))
    assert [one.status for one in state.tools] == [ToolStatus.SUCCEEDED, ToolStatus.FAILED]


def test_ended_tools_are_bounded_and_open_ones_stay() -> None:
    calls = [step for n in range(TOOLS_KEPT + 3) for step in tool(f"c{n}", success=True)]
    state = folded(events(START, *tool("open"), *calls))
    assert len(state.tools) == TOOLS_KEPT + 1
    assert (state.tools[0].tool_call_id, state.tools[1].tool_call_id) == ("open", "c3")
    assert state.tools_dropped == 3


def test_latest_thought_and_progress_are_kept() -> None:
    state = folded(
        events(
            START,
            ("agent_thinking", {"thinking": "a", "step": 1}),
            ("progress_update", {"percentage": 10}),
            ("agent_thinking", {"thinking": "b"}),
            ("progress_update", {"percentage": 20}),
            ("app.custom", {"thinking": "c"}),
        )
    )
    assert (state.thinking, state.progress) == ({"thinking": "b"}, {"percentage": 20})
    assert state.last_seq == 6


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (
            ("agent_completed", {"result": {"a": 1}, "outcome": "success", "usage": {"n": 2}}),
            {"status": RunStatus.COMPLETED, "result": {"a": 1}, "usage": {"n": 2}},
        ),
        (("agent_completed", {"outcome": "suspended"}), {"status": RunStatus.SUSPENDED}),
        (
            ("agent_error", {"code": "timeout", "message": "late", "retryable": True}),
            {
                "status": RunStatus.FAILED,
                "error": RunFailure(code="timeout", message="late", retryable=True),
            },
        ),
        (
            ("agent_cancelled", {"reason": "enough"}),
            {"status": RunStatus.CANCELLED, "cancel_reason": "enough"},
        ),
    ],
    ids=["completed", "suspended", "failed", "cancelled"],
)
def test_each_end_is_told(end: Step, expected: dict[str, Any]) -> None:
    state = folded(events(START, end))
    begun = folded(events(START))
    assert state == msgspec.structs.replace(begun, ended_at=1002, last_seq=2, **expected)
    assert not state.is_open


def test_run_continued_is_named() -> None:
    state = folded([event(1, "agent_started", {"continues_run_id": "r0"})])
    assert state.continues_run_id == "r0"


def test_starts_of_sub_agents_are_listed_once() -> None:
    child = event(2, "agent_started", run_id="r2", parent_run_id="r1")
    said = event(3, "agent_delta", delta("x")[1], run_id="r2", parent_run_id="r1")
    state = folded([event(1, "agent_started"), child, said, child])
    assert (state.children, state.last_seq, state.text) == (("r2",), 1, "")


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


def test_fold_may_begin_after_the_start() -> None:
    """Retention may have dropped what came before."""
    state = folded([event(9, *delta("so far"), from_seq=5)])
    assert (state.run_id, state.started_at, state.first_seq, state.text) == (
        "r1",
        None,
        5,
        "so far",
    )


def test_merged_delta_seen_in_part_is_refused() -> None:
    fold = RunFold(folded(events(START, delta("a"), delta("b"))))
    with pytest.raises(UsageError, match="2-4"):
        fold.apply(event(4, *delta("abc"), from_seq=2))
    assert fold.state.text == "ab"


def test_latest_of_a_range_may_have_been_seen_in_part() -> None:
    fold = RunFold(folded(events(START, ("progress_update", {"percentage": 1}))))
    fold.apply(event(4, "progress_update", {"percentage": 3}, from_seq=2))
    assert fold.state.progress == {"percentage": 3}


def test_data_of_any_shape_is_folded() -> None:
    odd: dict[str, Any] = {
        "message_id": 5, "delta": None, "part": [], "tool_call_id": {}, "tool_name": 1,
        "duration_ms": "long", "code": 1, "message": None, "reason": 7, "continues_run_id": 1,
    }  # fmt: skip
    types = ["agent_started", "agent_delta", "tool_executing", "tool_completed", "agent_cancelled"]
    state = folded(events(*((type, odd) for type in [*types, "agent_error"])))
    assert decode_state(encode_state(state)) == state


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

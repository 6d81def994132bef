"""``assert_complete`` finds what is not complete, and only that."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary import Run, UserWebSocketContext, WebSocketBridgeFactory
from catenary.testing import assert_complete


def event(seq: int, type: str, run_id: str | None = "r1", **data: Any) -> dict[str, Any]:
    named = {} if run_id is None else {"run_id": run_id}
    return {"type": type, "id": f"k3:{seq}", "seq": seq, "timestamp": 1, "data": data, **named}


WHOLE = [
    event(1, "agent_started"),
    event(2, "tool_executing", tool_name="search", tool_call_id="c1"),
    event(3, "app.note", None),
    event(4, "tool_completed", tool_name="search", tool_call_id="c1"),
    event(5, "agent_completed"),
]


async def test_what_a_real_run_emits_is_complete() -> None:
    factory = WebSocketBridgeFactory("memory://?private")
    emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))

    async def agent(run: Run) -> None:
        async with run.tool("search", {"q": "bridges"}) as tool:
            tool.set_result(["one"])
        for word in ("two ", "bridges"):
            run.delta(word)

    for _ in range(3):
        async with emitter.run(agent_name="researcher") as run:
            await agent(run)
    assert_complete([event async for event in factory.events("user_123")], runs=3)


def test_merged_ranges_count_as_what_they_stand_for() -> None:
    merged = {**event(7, "agent_delta", message_id="m"), "from_seq": 2}
    assert_complete([event(1, "agent_started"), merged, event(8, "agent_completed")])


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([*WHOLE[:2], *WHOLE[3:]], "k3:4 follows k3:2: the next number is 3"),
        ([*WHOLE[:3], WHOLE[2], *WHOLE[3:]], "k3:3 follows k3:3"),
        ([*WHOLE[:2], WHOLE[3], WHOLE[2], WHOLE[4]], "the next number is"),
        ([*WHOLE[:4], {**WHOLE[4], "id": "k4:5"}], "another epoch"),
        (WHOLE[1:], "run r1 begins with tool_executing"),
        (WHOLE[:4], "run r1 has 0 ends: it goes on"),
        ([*WHOLE, event(6, "agent_error")], "run r1 has 2 ends: agent_completed, agent_error"),
        ([*WHOLE, event(6, "agent_thinking")], "goes on after its agent_completed"),
        ([WHOLE[0], event(2, "agent_started"), event(3, "agent_completed")], "starts 2 times"),
        ([*WHOLE[:3], event(4, "agent_completed")], "leaves the tool search (c1) open"),
        (
            [event(1, "agent_started"), event(2, "tool_completed", tool_call_id="c9"),
             event(3, "agent_completed")],
            "ends the tool c9, which had not begun",
        ),
    ],
)  # fmt: skip
def test_what_is_not_complete_is_told(events: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(AssertionError) as raised:
        assert_complete(events)
    assert told in str(raised.value)


def test_the_number_of_runs_counts() -> None:
    with pytest.raises(AssertionError, match="1 runs began, not 2"):
        assert_complete(WHOLE, runs=2)
    assert_complete([], runs=0)


@given(st.data())
def test_any_event_that_is_taken_out_is_missed(data: st.DataObject) -> None:
    """But for the first and the last of what belongs to no run: nobody can know of them."""
    events = [
        WHOLE[0],
        *(event(seq, "app.note") for seq in range(2, 9)),
        event(9, "agent_completed"),
    ]
    index = data.draw(st.integers(0, len(events) - 1))
    with pytest.raises(AssertionError):
        assert_complete(events[:index] + events[index + 1 :])

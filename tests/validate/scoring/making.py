"""Events and times for the tests of scores."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from catenary.events import RUN_ENDS, EventType, WebSocketEvent
from catenary.validate.scoring import Received

fixed = settings(derandomize=True, max_examples=300, deadline=None, database=None)
TYPES = [*map(str, EventType), "app.note", "note"]


def event(type: str, seq: int = 1, **fields: Any) -> WebSocketEvent:
    """An event of ``user_123`` in a run and thread, unless the fields say otherwise."""
    known: dict[str, Any] = {
        "user_id": "user_123",
        "thread_id": "t1",
        "run_id": "r1",
        "agent_name": "scout",
    }
    known |= {"timestamp": 1_795_222_800_123, **fields}
    return WebSocketEvent(type=type, id=f"k3:{seq}", seq=seq, **known)


def run_of(*times: float, run_id: str = "r1", end: bool = True, **fields: Any) -> list[Received]:
    """A run whose events come at these times, the last one its end."""
    types = ["agent_started", *["app.note"] * (len(times) - 2), "agent_completed"][: len(times)]
    if not end:
        types = ["agent_started", *["app.note"] * (len(times) - 1)]
    return [
        Received(event(type, seq, run_id=run_id, **fields), at)
        for seq, (type, at) in enumerate(zip(types, times, strict=True), 1)
    ]


words = st.sampled_from(["looking", "for", "bridges", "thinking", "please", "...", "done", "42"])
texts = st.lists(words, max_size=6).map(" ".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(
    [
        "task", "thinking", "delta", "message_id", "tool_name", "tool_call_id", "tool_input",
        "tool_output", "success", "error", "duration_ms", "result", "outcome", "code", "message",
        "reason", "by", "percentage", "current_step", "total_steps", "content",
        "client_message_id", "request_id", "question", "kind", "answer", "usage", "x",
    ]
)  # fmt: skip
datas = st.dictionaries(fields, values, max_size=6)


@st.composite
def events(draw: st.DrawFn) -> WebSocketEvent:
    """Any event, with or without what it should carry."""
    given: dict[str, Any] = {
        name: draw(st.none() | st.just(value))
        for name, value in (("thread_id", "t1"), ("run_id", "r1"), ("agent_name", "scout"))
    }
    return event(draw(st.sampled_from(TYPES)), data=draw(datas), **given)


@st.composite
def histories(draw: st.DrawFn) -> list[Received]:
    """What a user of a few runs received, in order."""
    types = st.sampled_from([*RUN_ENDS, "agent_started", "agent_delta", "user_message", "app.note"])
    times = sorted(draw(st.lists(st.floats(0, 100), min_size=1, max_size=12)))
    return [
        Received(
            event(
                draw(types),
                seq,
                run_id=draw(st.sampled_from([None, "r1", "r2"])),
                data={"delta": "x", "content": "x"},
            ),
            at,
        )
        for seq, at in enumerate(times, 1)
    ]

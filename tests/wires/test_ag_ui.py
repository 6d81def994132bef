from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from ag_ui_validate.pytest_plugin import validate_agui
from hypothesis import given, settings
from hypothesis import strategies as st

from catenary.events import WebSocketEvent
from catenary.position import Position
from catenary.wires.ag_ui import AgUiTurn, messages_of
from catenary.wires.native import event_payload
from catenary.wires.translation import Said, Translation
from catenary.wires.turn import Turn
from tests.wires.acting import ACTS, Acted, acted

Frame = dict[str, Any]
START = Position("k3", 0)


def encoder() -> AgUiTurn:
    return AgUiTurn(Turn(message_id="msg_1"), thread_id="t1", run_id="run-a")


def frames_of(events: Iterable[WebSocketEvent]) -> list[Frame]:
    one = encoder()
    frames = [frame for event in events for frame in one.take(event)]
    return [*frames, *one.stop()]


def check(frames: list[Frame]) -> None:
    """No rule of AG-UI is broken, nothing is null, and no delta empty."""
    assert all(frame.get("delta") != "" for frame in frames)
    report = validate_agui(frames)
    found = [(one.rule, one.message) for one in report.diagnostics if one.severity == "error"]
    assert (found, report.internal_errors) == ([], [])
    assert b"null" not in msgspec.json.encode(
        [{key: frame[key] for key in frame if key != "value"} for frame in frames]
    )


def text_of(frames: list[Frame]) -> str:
    return "".join(
        frame["delta"]
        for frame in frames
        if frame["type"] == "TEXT_MESSAGE_CONTENT" and "subagentRunId" not in frame
    )


@given(ACTS, st.sampled_from(["complete", "fail", "cancel"]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_however_text_is_merged_the_messages_are_the_same(
    acts: list[tuple[str, str]], end: str
) -> None:
    """Every stream keeps the rules of AG-UI; all text is there, once, in order."""
    made = acted(acts, end)
    frames, merged = frames_of(made.events), frames_of(made.merged)
    check(frames)
    check(merged)
    assert messages_of(frames) == messages_of(merged)
    assert text_of(frames) == made.text


def translated(made: Acted, payloads: Iterable[bytes], translation: Translation) -> list[Said]:
    return [said for payload in payloads for said in translation.take(payload)]


@given(ACTS, st.booleans())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_reader_that_was_cut_between_any_two_frames_gets_the_rest(
    acts: list[tuple[str, str]], was_behind: bool
) -> None:
    """With the place of the last frame it has, however its text and what follows is merged."""
    made = acted(acts)
    first = made.after(START) if was_behind else [event_payload(one) for one in made.records]
    whole = translated(made, first, Translation(encoder()))
    expected = messages_of([msgspec.json.decode(one.frame) for one in whole])
    for cut, last in enumerate(whole, 1):
        place, _, skips = last.place.partition("+")
        at = Position.parse(place)
        primed = encoder()
        for event in made.merged:
            if (event.from_seq or event.seq) <= at.seq:
                primed.take(event)
        rest = translated(made, made.after(at), Translation(primed, skips=int(skips or 0)))
        frames = [msgspec.json.decode(said.frame) for said in [*whole[:cut], *rest]]
        check(frames)
        assert messages_of(frames) == expected


@given(ACTS, st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_whoever_joins_at_any_moment_has_all_of_it(
    acts: list[tuple[str, str]], data: st.DataObject
) -> None:
    """What was said before comes as a snapshot, what follows as it comes; the rules are kept."""
    made = acted(acts)
    joins = data.draw(st.integers(3, len(made.records) - 1))
    one = encoder()
    before = [frame for event in made.events[:joins] for frame in one.take(event)]
    known = [{"id": "old", "role": "user", "content": "before"}]
    frames = one.joined(before, known)
    later = [frame for event in made.events[joins:] for frame in one.take(event)]
    later += one.stop()
    check([*frames, *later])
    snapshot = next(frame for frame in frames if frame["type"] == "MESSAGES_SNAPSHOT")
    assert snapshot["messages"][0] == known[0]
    expected = messages_of(frames_of(made.events))
    assert applied(snapshot["messages"][1:], later) == expected


def applied(messages: list[Frame], frames: list[Frame]) -> list[Frame]:
    """What a client makes of a snapshot and of what follows it."""
    known = {message["id"]: dict(message) for message in messages}
    for message in messages_of([*_openings(messages), *frames]):
        if message["id"] in known and "content" in message and message["role"] != "tool":
            known[message["id"]]["content"] += message["content"]
        else:
            known.setdefault(message["id"], message)
    return list(known.values())


def _openings(messages: list[Frame]) -> list[Frame]:
    starts = {"assistant": "TEXT_MESSAGE_START", "reasoning": "REASONING_MESSAGE_START"}
    return [
        {"type": starts[message["role"]], "messageId": message["id"]}
        for message in messages
        if message["role"] in starts and "toolCalls" not in message
    ]


def test_text_around_a_tool_is_two_messages_in_order() -> None:
    """A message that was interrupted goes on under another id, so that the order is seen."""
    frames = frames_of(acted([("text", "a"), ("tool", "q"), ("text", "b")]).events)
    assert [(one["id"], one["role"]) for one in messages_of(frames)] == [
        ("m_r1", "assistant"), ("call_1", "assistant"), ("result_call_1", "tool"),
        ("m_r1_2", "assistant"),
    ]  # fmt: skip
    types = [frame["type"] for frame in frames]
    assert types.index("TEXT_MESSAGE_END") < types.index("TOOL_CALL_START")


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("complete", {"type": "RUN_FINISHED", "outcome": {"type": "success"}}),
        ("cancel", {"type": "RUN_FINISHED", "outcome": {"type": "cancelled"}}),
        ("fail", {"type": "RUN_ERROR", "code": "agent_failed"}),
    ],
)
def test_the_ends(end: str, last: Frame) -> None:
    """Each end has its frame, under the ids that the client asked with."""
    frames = frames_of(acted([("text", "so far")], end).events)
    assert frames[0]["runId"] == "run-a"
    assert {key: frames[-1][key] for key in last} == last

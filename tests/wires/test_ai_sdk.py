from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings

from catenary.events import WebSocketEvent
from catenary.wires.ai_sdk import AiSdkTurn
from catenary.wires.turn import Turn
from tests.wires.acting import ACTS, acted

Chunk = dict[str, Any]


def chunks_of(events: Iterable[WebSocketEvent]) -> list[Chunk]:
    """All chunks of the turn, and its last."""
    encoder = AiSdkTurn(Turn(message_id="msg_1"))
    chunks = [chunk for event in events for chunk in encoder.take(event)]
    assert encoder.turn.is_stopped
    return [*chunks, *encoder.stop()]


def message_of(chunks: Iterable[Chunk]) -> list[tuple[str, Any]]:
    """The parts of the message that a client makes; it refuses what ``useChat`` refuses."""
    parts: list[list[Any]] = []
    open_parts: dict[tuple[str, str], list[Any]] = {}
    tools: set[str] = set()
    for chunk in chunks:
        kind, _, step = chunk["type"].rpartition("-")
        if kind in {"text", "reasoning"}:
            key = (kind, chunk["id"])
            if step == "start":
                assert key not in open_parts
                parts.append([kind, ""])
                open_parts[key] = parts[-1]
            elif step == "delta":
                open_parts[key][1] += chunk["delta"]
            else:
                del open_parts[key]
        elif chunk["type"] == "tool-input-available":
            tools.add(chunk["toolCallId"])
            parts.append(["tool", chunk["input"]])
        elif chunk["type"].startswith("tool-output"):
            assert chunk["toolCallId"] in tools
            parts.append(["output", chunk.get("output", chunk.get("errorText"))])
        elif chunk["type"].startswith("data-") and chunk["type"] != "data-progress":
            parts.append([chunk["type"], chunk["data"]])
    assert open_parts == {}
    return [(part[0], part[1]) for part in parts]


@given(ACTS)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_however_text_is_merged_the_message_is_the_same(acts: list[tuple[str, str]]) -> None:
    """All of it, once, in the order in which it was emitted."""
    made = acted(acts)
    message = message_of(chunks_of(made.events))
    assert message == message_of(chunks_of(made.merged))
    assert "".join(text for kind, text in message if kind == "text") == made.text
    assert "".join(text for kind, text in message if kind == "reasoning") == made.reasoning


def test_the_chunks_of_a_turn() -> None:
    """They are those that CLIENTS of the AI SDK know, under the id of the run."""
    made = acted([("think", "hm"), ("text", "a"), ("text", "b"), ("tool", "q"), ("text", "c")])
    assert [chunk["type"] for chunk in chunks_of(made.events)] == [
        "start", "start-step",
        "reasoning-start", "reasoning-delta", "reasoning-end",
        "text-start", "text-delta", "text-delta", "text-end",
        "tool-input-start", "tool-input-available", "tool-output-error",
        "text-start", "text-delta", "data-app.noise", "text-end",
        "finish-step", "finish",
    ]  # fmt: skip
    assert chunks_of(made.events)[0] == {"type": "start", "messageId": "r1"}
    assert chunks_of(made.events)[-1] == {"type": "finish", "finishReason": "stop"}


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("fail", {"type": "error", "errorText": "the agent failed: ValueError"}),
        ("cancel", {"type": "abort", "reason": "enough"}),
    ],
)
def test_the_other_ends(end: str, last: Chunk) -> None:
    """A failure is an error without what is private, a cancel an abort with its reason."""
    assert chunks_of(acted([("text", "so far")], end).events)[-1] == last

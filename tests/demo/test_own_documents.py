"""The agent over this project's real documents: good answers to what people ask."""

from __future__ import annotations

import pytest

from catenary import UserWebSocketEmitter
from catenary.demo.agent import answer
from catenary.demo.library import Library

LIBRARY = Library.find()


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("How does a reconnect resume, and what is a gap?", ["A gap is", "opens a new cursor"]),
        (
            "How many guarantees are there and which one covers isolation?",
            ["8: G1 (Isolation)", "G1 covers isolation"],
        ),
        (
            "What is 30 connections × 64 KiB, and where does that limit come from?",
            ["1,966,080 bytes", "connections of a user, on all nodes together: 30"],
        ),
        ("What happens when the server is killed with kill -9?", ["acknowledged", "producer_lost"]),
        ("How do I emit an event from a thread?", ["worker thread", "```", "threading"]),
        ("What does it cost to be a slow reader?", ["A slow reader costs"]),
        ("What happens when the disk is full?", ["intake"]),
        ("How does it work?", ["Catenary is"]),
        ("Which close codes forbid reconnecting?", ["4500 to 4999"]),
        ("Who wrote Hamlet?", ["I found nothing about this"]),
    ],
)
async def test_question_gets_a_good_answer(
    emitter: UserWebSocketEmitter, question: str, said: list[str]
) -> None:
    async with emitter.run(agent_name="librarian") as run:
        await answer(run, question, LIBRARY, pace=0)
    for words in said:
        assert words in run.state.text

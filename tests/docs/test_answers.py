"""What people ask first is answered by these documents."""

from __future__ import annotations

import pytest

from catenary import UserWebSocketEmitter
from catenary.demo.agent import answer
from catenary.demo.library import Library


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.find()


@pytest.mark.parametrize(
    ("question", "facts"),
    [
        (
            "How does a reconnect resume, and what is a gap?",
            ["`after=<its last position>`", "strictly between `after` and `resumes_at`"],
        ),
        (
            "How many guarantees are there and which one covers isolation?",
            ["8: G1 (Isolation)", "G1 covers isolation"],
        ),
        (
            "What is 30 connections × 64 KiB, and where does that limit come from?",
            ["1,920 KiB", "64 KiB", "30"],
        ),
        (
            "What happens when the server is killed with kill -9?",
            ["Nothing that was acknowledged is lost", "`producer_lost`"],
        ),
        ("How do I emit an event from a thread?", ["from a worker thread", "emitter.custom("]),
        ("What does a slow reader cost?", ["two turns of bytes", "nothing to anyone else"]),
        ("How long are events kept?", ["10,000 events", "24 hours"]),
        ("How do I restore a backup?", ["catenary log new-term"]),
        ("What happens to my agent when its user closes the tab?", ["The agent goes on"]),
        ("What happens when a token expires?", ["closed with 4001"]),
        ("How do I authenticate with a cookie?", ["`cookie_name=`"]),
        ("Can I use several nodes?", ["one process for each group of users"]),
    ],
)
async def test_a_question_is_answered_with_its_facts(
    question: str, facts: list[str], library: Library, emitter: UserWebSocketEmitter
) -> None:
    """The demo's agent quotes what answers it."""
    async with emitter.run(agent_name="librarian") as run:
        await answer(run, question, library, pace=0)
        said = run.state.text
    assert [fact for fact in facts if fact not in said] == []

"""The demo's agent: what it decides, which tools it uses, and what it answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from catenary import UserWebSocketEmitter, WebSocketBridgeFactory, WebSocketEvent
from catenary.demo.agent import answer
from catenary.demo.library import Library
from catenary.fold import RunState, RunStatus

LIBRARY = Library.open({"docs": Path(__file__).parent / "documents"})
GUIDE, RULES = "docs/guide.md", "docs/rules.md"


@pytest.fixture
def ask(factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter) -> Asking:
    return Asking(factory, emitter)


class Asking:
    """One question to the agent, and what its reader sees of the run."""

    def __init__(self, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter) -> None:
        self.factory = factory
        self.emitter = emitter
        self.seen: list[WebSocketEvent] = []

    async def __call__(self, question: str, *, pace: float = 0) -> RunState:
        async with self.emitter.run(agent_name="librarian") as run:
            await answer(run, question, LIBRARY, pace=pace)
        await self.look()
        return run.state

    async def look(self) -> None:
        self.seen = [event async for event in self.factory.events("user_123")]

    def of_type(self, type: str) -> list[dict[str, Any]]:
        return [event.data for event in self.seen if event.type == type]

    @property
    def tools(self) -> list[str]:
        return [data["tool_name"] for data in self.of_type("tool_executing")]


async def test_question_is_answered_with_quotes_and_their_source(ask: Asking) -> None:
    state = await ask("How far is the fog horn heard in a storm?")
    assert state.status is RunStatus.COMPLETED
    assert state.text == (
        f"In a storm the fog horn sounds. That horn is heard for 3 miles. [{GUIDE}, “Storms”]"
    )
    assert state.result == {
        "answer": state.text,
        "sources": [{"path": GUIDE, "title": "Storms"}],
    }
    assert ask.tools[:2] == ["search", "read_file"]


async def test_answer_is_streamed_word_by_word(ask: Asking) -> None:
    state = await ask("How far is the fog horn heard in a storm?")
    deltas = [data["delta"] for data in ask.of_type("agent_delta")]
    assert len(deltas) == len(state.text.split())
    assert "".join(deltas) == state.text


async def test_thoughts_say_what_is_decided_and_why(ask: Asking) -> None:
    await ask("How far is the fog horn heard in a storm?")
    first, second, *_ = [data["thinking"] for data in ask.of_type("agent_thinking")]
    assert "search" in first
    assert "“Storms”" in second


async def test_what_can_be_computed_is_computed(ask: Asking) -> None:
    state = await ask("What is 30 boats × 64 KiB?")
    assert state.text == "30 × 64 KiB = 1,966,080 bytes = 1,920 KiB = 1.875 MiB."
    assert ask.tools == ["compute"]


async def test_what_cannot_be_computed_fails_its_tool_and_not_the_run(ask: Asking) -> None:
    state = await ask("What is 3 / 0?")
    assert "cannot be computed" in state.text
    assert [data["success"] for data in ask.of_type("tool_completed")] == [False]


async def test_what_is_listed_is_counted(ask: Asking) -> None:
    state = await ask("How many duties are there?")
    assert state.text == (
        f"3: D1 (Isolation); D2 (Watch); D3 (Log). [{GUIDE}, “Duties of a keeper”]"
    )
    assert ask.tools == ["count"]


async def test_what_is_not_listed_is_searched(ask: Asking) -> None:
    state = await ask("How many litres of oil does the lamp burn?")
    assert "12 litres" in state.text
    assert ask.tools[:2] == ["count", "search"]


async def test_mentions_of_a_word_are_counted(ask: Asking) -> None:
    state = await ask("How often is the word lamps mentioned?")
    assert state.text == f"“lamps” occurs 3 times: 2 in {RULES}, 1 in {GUIDE}."
    assert "does not occur" in (await ask("How often is the word zebra mentioned?")).text


async def test_how_to_do_something_is_shown_with_code(ask: Asking) -> None:
    state = await ask("How do I light the spare lamp by hand?")
    assert 'tower.light("spare")' in state.text
    assert "```" in state.text


async def test_each_part_gets_a_sub_agent(ask: Asking) -> None:
    state = await ask("What is 30 boats × 64 KiB, and where does that limit come from?")
    starts = [event for event in ask.seen if event.type == "agent_started"]
    assert [event.agent_name for event in starts] == ["librarian", "reader 1", "reader 2"]
    assert {event.parent_run_id for event in starts[1:]} == {state.run_id}
    assert "1,966,080 bytes" in state.text
    assert "the piers are short" in state.text
    assert "the shed is small" in state.text
    assert state.progress == {
        "message": "2 of 2 parts are answered", "percentage": 100.0,
        "current_step": 2, "total_steps": 2,
    }  # fmt: skip


async def test_nothing_found_is_said(ask: Asking) -> None:
    state = await ask("Who painted the Mona Lisa?")
    assert state.text.endswith("(I looked for “painted”, “Mona”, “Lisa”).")
    assert state.text.startswith("I found nothing about this in the 2 documents")
    assert state.result["sources"] == []
    assert ask.tools == ["search"]
    assert len(ask.of_type("agent_thinking")) == 2


async def test_what_fits_too_little_is_not_quoted(ask: Asking) -> None:
    state = await ask("Which French king married the daughter of a keeper at Versailles?")
    assert state.text.startswith("I found nothing about this")
    assert "read_file" in ask.tools


async def test_words_that_no_document_has_are_named(ask: Asking) -> None:
    state = await ask("Is the fog horn heard in storms by dolphins?")
    assert "fog horn" in state.text
    assert state.text.endswith("The documents say nothing about “dolphins”.")


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "docs/../../x.md"])
async def test_files_outside_the_library_are_refused(ask: Asking, path: str) -> None:
    state = await ask(f"Read {path}")
    assert state.text.startswith(f"I may not read {path}")
    assert ask.of_type("tool_completed")[0]["error"] == "not in the library"


async def test_file_that_is_named_is_read(ask: Asking) -> None:
    state = await ask(f"What is in {RULES}?")
    assert state.text == f"{RULES} has these sections: “Rules of the coast”, “Limits”, “Lamps”."


async def test_text_without_a_question_is_answered_with_help(ask: Asking) -> None:
    assert (await ask("…")).text.startswith("Ask me something")


async def test_cancelled_agent_stops_and_keeps_what_was_said(ask: Asking) -> None:
    """Cancelling the run ends its sub-agents and the streaming; the text so far stays."""
    started = asyncio.Event()
    states: list[RunState] = []

    async def work() -> None:
        async with ask.emitter.run(agent_name="librarian") as run:
            started.set()
            try:
                await answer(run, "What are lamps? What are storms?", LIBRARY, pace=0.005)
            finally:
                states.append(run.state)

    task = asyncio.create_task(work())
    await started.wait()
    async for event in ask.factory.events("user_123", follow=True):
        if event.type == "agent_delta":
            await ask.emitter.cancel_run(event.run_id or "")
            break
    with pytest.raises(BaseException, match=r".*"):
        await task
    await ask.look()
    ends = [
        event.type for event in ask.seen if event.type in ("agent_cancelled", "agent_completed")
    ]
    assert ends == ["agent_completed", "agent_completed", "agent_cancelled"]
    assert states[0].text

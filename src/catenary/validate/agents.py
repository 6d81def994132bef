"""The agents of the campaigns: small ones that do what real ones do, without a model."""

from __future__ import annotations

import asyncio

from catenary.runs import Run

FIVE_EVENTS = (
    "agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed",
)  # fmt: skip
"""What every run of :func:`five_events` says, in this order."""


async def five_events(run: Run, marker: str) -> dict[str, str]:
    """Think, use one tool, and answer."""
    run.thinking(f"Looking at {marker}", step=1, total_steps=2)
    async with run.tool("look_up", {"marker": marker}) as tool:
        await asyncio.sleep(0)
        tool.set_result({"found": marker})
    return {"answer": f"It is {marker}", "marker": marker}


async def talkative(run: Run, words: int, pause: float) -> dict[str, int]:
    """Say numbered words, one after the other; ``pause`` in seconds."""
    for number in range(words):
        run.delta(f"{run.run_id}-{number} ")
        await asyncio.sleep(pause)
    return {"words": words}


def in_a_thread(run: Run, marker: str) -> dict[str, str]:
    """Do what :func:`five_events` does, as a synchronous agent."""
    run.thinking(f"Looking at {marker}")
    with run.tool("look_up", {"marker": marker}) as tool:
        tool.set_result({"found": marker})
    return {"answer": f"It is {marker}", "marker": marker}

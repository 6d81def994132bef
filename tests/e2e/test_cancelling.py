"""A client cancels a run that has sub-runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from catenary.errors import RunCancelled
from catenary.runs import Run
from tests.e2e.support import Reader, bridge, log_url


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
async def test_cancelling_a_run_cancels_what_it_began(kind: str, tmp_path: Path) -> None:
    """A run, its child and its grandchild end as cancelled; others of the user go on."""

    async def descend(run: Run, depth: int) -> None:
        if depth == 0:
            await asyncio.sleep(60)
            return
        async with run.child(agent_name=f"helper {depth}") as child:
            await descend(child, depth - 1)

    async def work() -> None:
        async with running.emitter("user_123").run(agent_name="chief", run_id="r1") as run:
            # In a task of its own, so that nothing but the request reaches it.
            helper = asyncio.create_task(descend(run, 2))
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.wait([helper])

    async with bridge(log_url(kind, tmp_path)) as running:
        reader = await Reader.open(running, "user_123")
        other = running.emitter("user_123", run_id="other")
        other.agent_started()
        working = asyncio.create_task(work())
        await reader.until(lambda: reader.reached == 4)
        answer = await reader.answer_to({"type": "cancel_run", "id": "c1", "run_id": "r1"})
        assert answer == {"type": "ack", "id": "c1"}
        infos = await running.factory.log.runs("user_123", only_open=True)
        await reader.until(lambda: len(reader.of_type("agent_cancelled")) == 3)
        assert all(info.cancel_requested_at for info in infos if info.run_id != "other")
        with pytest.raises(RunCancelled):
            await working
        await other.agent_completed()

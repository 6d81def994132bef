"""
The application of the end-to-end tests: agents that emit until they are stopped.

What an agent was acknowledged goes to the file that ``ACKNOWLEDGED`` names, a
line each, which survives the process that wrote it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.inbound import Message

ACKNOWLEDGED = "CATENARY_TEST_ACKNOWLEDGED"
PACE = 0.002


class Journal:
    """An append-only file; each line is one write, so that a kill leaves whole ones."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, *words: object) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())


def make_bridge(log: str, run_drain_timeout: float) -> WebSocketBridgeFactory:
    """Return a bridge whose ``work`` starts an agent that never ends by itself."""
    factory = WebSocketBridgeFactory(log=log, run_drain_timeout=run_drain_timeout)
    journal = Journal(Path(os.environ[ACKNOWLEDGED]))

    async def note(run: Run, marker: str, position: object) -> None:
        journal.note(run.emitter.user_id, position, marker)

    async def work(run: Run, pace: float) -> None:
        number = 0
        while True:
            number += 1
            marker = f"{run.run_id}-{number}"
            if number % 4:
                receipt = run.delta(f"{marker} ")
            else:
                receipt = run.custom("app.tick", {"marker": marker})
            # Several are on their way at a time, as they are from a model.
            if number % 3 == 0:
                await note(run, marker, await receipt)
            await asyncio.sleep(pace)

    @factory.on_message("work")
    async def start(message: Message, emitter: UserWebSocketEmitter) -> dict[str, str]:
        pace = (message.data or {}).get("pace", PACE)
        return {"run_id": emitter.start_run(work, pace, agent_name="worker").run_id}

    return factory

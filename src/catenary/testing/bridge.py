"""The bridge of a test: it runs an agent, and brings what its user received."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from catenary.client import Client
from catenary.events import RUN_ENDS, WebSocketEvent
from catenary.fold import RunFold
from catenary.run_state import RunState, RunStatus, ToolState
from catenary.validate.bridges import ServedBridge


@dataclass(frozen=True)
class AgentRun:
    """
    What a user received of one run, over a real connection.

    Attributes:
        state: The run folded from these events, as a page shows it.
        events: Every event of the run and its sub-agents, in order, merged ones as they came.
        connections: How many connections it took.
    """

    state: RunState
    events: tuple[WebSocketEvent, ...]
    connections: int

    @property
    def status(self) -> RunStatus:
        """How the run ended."""
        return self.state.status

    @property
    def text(self) -> str:
        """What the agent said."""
        return self.state.text

    @property
    def tools(self) -> tuple[ToolState, ...]:
        """The tools that it used, with what went in and what came out."""
        return self.state.tools

    @property
    def result(self) -> Any:
        """What it returned."""
        return self.state.result


class BridgeUnderTest(ServedBridge):
    """A :class:`ServedBridge` that runs agents."""

    async def run_agent(
        self,
        agent: Callable[..., Any],
        *args: Any,
        user_id: str | None = None,
        thread_id: str | None = None,
        agent_name: str | None = None,
        url: str | None = None,
        timeout: float = 30.0,
    ) -> AgentRun:
        """
        Run ``agent(run, *args)`` as the bridge does, and return what its user received.

        A coroutine function runs as a task of this loop, a plain function in a
        thread. The user is connected over a real socket before the run begins;
        through ``url`` by another way, such as a network that breaks. Without
        ``user_id`` it is one whom nobody knows.

        Raises:
            TimeoutError: If the end of the run has not come within ``timeout`` seconds.
        """
        user_id = user_id or f"user_{secrets.token_hex(4)}"
        emitter = self.emitter(user_id, **({"thread_id": thread_id} if thread_id else {}))
        async with asyncio.timeout(timeout), self.client(user_id, url=url) as client:
            await client.ping()
            handle = emitter.start_run(agent, *args, agent_name=agent_name)
            events = await _until_ended(client, handle.run_id)
            await handle.wait()
            return AgentRun(_folded(events, handle.run_id), events, client.stats.connections)


async def _until_ended(client: Client, run_id: str) -> tuple[WebSocketEvent, ...]:
    """Take the events of a run and of its sub-agents, through its end."""
    family = {run_id}
    events: list[WebSocketEvent] = []
    async for event in client:
        if event.parent_run_id in family and event.run_id is not None:
            family.add(event.run_id)
        if event.run_id in family:
            events.append(event)
        if event.run_id == run_id and event.type in RUN_ENDS:
            break
    return tuple(events)


def _folded(events: tuple[WebSocketEvent, ...], run_id: str) -> RunState:
    fold = RunFold()
    for event in events:
        if event.run_id == run_id:
            fold.apply(event)
    return fold.state

"""
The application of the bridges that a validation starts in processes of their own.

Its agents are started by client messages, as any application's are:
``validate.run`` starts one of :mod:`catenary.validate.agents`,
``validate.flood`` threads that emit as fast as they can, or at a rate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from catenary.context import UserWebSocketContext
from catenary.emitter import UserWebSocketEmitter
from catenary.factory import WebSocketBridgeFactory
from catenary.inbound import Message
from catenary.limits import Limits
from catenary.validate import agents
from catenary.validate.audience import NOTE_TYPE


class Flood(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """
    What ``validate.flood`` asks for.

    Each user gets ``events`` notes from a thread of its own, or from one
    thread for all with ``threads=1``; in bursts of ``burst`` with ``pause``
    seconds between them; ``pad_bytes`` make each as large.
    """

    users: list[str]
    events: int
    threads: int = 1
    burst: int = 1
    pause: float = 0.0
    pad_bytes: int = 0


class RunWish(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What ``validate.run`` asks for: an agent by name, and its arguments."""

    agent: str
    arguments: list[Any] = []
    users: list[str] = []
    """For whom; if empty, for whoever sent the message."""
    runs: int = 1


AGENTS: dict[str, Callable[..., Any]] = {
    "five_events": agents.five_events,
    "talkative": agents.talkative,
    "in_a_thread": agents.in_a_thread,
}


def make_bridge(log: str, limits: Limits, run_drain_timeout: float) -> WebSocketBridgeFactory:
    """Return a bridge whose agents are started by the messages of a validation."""
    factory = WebSocketBridgeFactory(log, limits=limits, run_drain_timeout=run_drain_timeout)

    def emitter_of(user_id: str, thread_id: str | None) -> UserWebSocketEmitter:
        return factory.get_user_emitter(UserWebSocketContext(user_id=user_id, thread_id=thread_id))

    @factory.on_message("validate.run")
    async def run(message: Message, emitter: UserWebSocketEmitter) -> dict[str, list[str]]:
        wish = msgspec.convert(message.data, RunWish)
        emitters = [emitter_of(user_id, message.thread_id) for user_id in wish.users] or [emitter]
        handles = [
            each.start_run(AGENTS[wish.agent], *wish.arguments, agent_name=wish.agent)
            for each in emitters
            for _ in range(wish.runs)
        ]
        return {"run_ids": [handle.run_id for handle in handles]}

    @factory.on_message("validate.flood")
    async def flood(message: Message, emitter: UserWebSocketEmitter) -> None:  # noqa: ARG001
        wish = msgspec.convert(message.data, Flood)
        for index in range(wish.threads):
            emitters = [emitter_of(user_id, None) for user_id in wish.users[index :: wish.threads]]
            threading.Thread(
                target=_flood, args=(emitters, wish), name=f"flood-{index}", daemon=True
            ).start()

    return factory


def _flood(emitters: list[UserWebSocketEmitter], wish: Flood) -> None:
    """Emit the notes, burst by burst; the pace is kept against the clock."""
    pad = "x" * wish.pad_bytes
    due = time.perf_counter()
    for begin in range(0, wish.events, wish.burst):
        for emitter in emitters:
            for number in range(begin, min(wish.events, begin + wish.burst)):
                emitter.custom(
                    NOTE_TYPE,
                    {
                        "marker": f"{emitter.user_id} {number}",
                        "sent_at": time.perf_counter(),
                        "pad": pad,
                    },
                )
        due += wish.pause
        wait = due - time.perf_counter()
        if wait > 0:
            time.sleep(wait)

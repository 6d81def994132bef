"""
The application of the bridges that a validation starts in processes of their own.

Its agents are started by client messages, as any application's are:
``validate.run`` starts one of :mod:`catenary.validate.agents`,
``validate.load`` a generator of load.
"""

from __future__ import annotations

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
from catenary.validate.load import Load, LoadGenerator


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

    @factory.on_message("validate.load")
    async def load(message: Message, emitter: UserWebSocketEmitter) -> None:  # noqa: ARG001
        wish = msgspec.convert(message.data, Load)
        emitters = {user_id: emitter_of(user_id, None) for user_id in wish.users}
        generator = LoadGenerator(
            wish, lambda user_id, data: emitters[user_id].custom(NOTE_TYPE, data)
        )
        generator.start()

    return factory

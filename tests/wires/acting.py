"""Turns to encode: what an agent does, as events of a real log, piece by piece and merged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from catenary import Run, RunCancelled, UserWebSocketContext, WebSocketBridgeFactory
from catenary.events import UserMessage, WebSocketEvent
from catenary.position import Position
from catenary.record import Record, merge_adjacent
from catenary.wires.native import event_of, event_payload

Act = Callable[[Run], None]


class Acted(NamedTuple):
    """The records of one thread, and the text and reasoning of its own agent."""

    records: list[Record]
    text: str
    reasoning: str

    @property
    def events(self) -> list[WebSocketEvent]:
        """The events, each as it was emitted."""
        return [event_of(record) for record in self.records]

    @property
    def merged(self) -> list[WebSocketEvent]:
        """The events as a reader that is behind gets them."""
        return [event_of(record) for record in merge_adjacent(self.records)]

    def after(self, place: Position) -> list[bytes]:
        """The native messages of a reader that comes back with a place, and is behind."""
        left = [record for record in self.records if record.seq > place.seq]
        return [event_payload(record) for record in merge_adjacent(left)]


def acted(acts: Sequence[tuple[str, Any]], end: str = "complete") -> Acted:
    """Let an agent do these things, in a thread in which others are active too."""
    return asyncio.run(_acted(acts, end))


async def _acted(acts: Sequence[tuple[str, Any]], end: str) -> Acted:
    async with WebSocketBridgeFactory(log="memory://?private") as factory:
        context = UserWebSocketContext(user_id="user_123", thread_id="t1")
        emitter = factory.get_user_emitter(context)
        emitter.custom("app.noise", {"n": 0})
        emitter.user_message(UserMessage(message_id="msg_1", content="why?"))
        emitter.in_reply_to = "msg_1"
        try:
            async with emitter.run(agent_name="agent", run_id="r1") as run:
                for number, (kind, value) in enumerate(acts):
                    _ACTS[kind](run, number, value)
                run.custom("app.noise", {"n": 1})
                if end == "fail":
                    int("private")
                if end == "cancel":
                    await emitter.cancel_run("r1", reason="enough")
                    await run.wait_cancelled()
        except (ValueError, RunCancelled):
            if end == "complete":
                raise
        page = await factory.log.read("user_123", Position.parse(f"{emitter.stream.epoch}:0"))
        text = "".join(value for kind, value in acts if kind in {"text", "other"})
        reasoning = "".join(value for kind, value in acts if kind in {"reason", "think"})
        return Acted(page.records, text, reasoning)


def _tool(run: Run, number: int, value: str) -> None:
    call = f"call_{number}"
    run.emitter.tool_executing("search", {"q": value}, tool_call_id=call, run_id=run.run_id)
    run.emitter.tool_completed(
        "search", value, tool_call_id=call, success=number % 3 != 0, error="no", run_id=run.run_id
    )


def _child(run: Run, number: int, value: str) -> None:
    verbs, run_id = run.emitter, f"child_{number}"
    verbs.agent_started("helper", run_id=run_id, parent_run_id=run.run_id)
    verbs.agent_delta(value, run_id=run_id)
    verbs.agent_completed(run_id=run_id)


_ACTS: dict[str, Callable[[Run, int, str], object]] = {
    "text": lambda run, _, value: run.delta(value),
    "other": lambda run, _, value: run.delta(value, message_id="m_other"),
    "reason": lambda run, _, value: run.delta(value, part="reasoning"),
    "think": lambda run, _, value: run.thinking(value),
    "progress": lambda run, _, value: run.progress(value),
    "custom": lambda run, _, value: run.custom("app.note", {"value": value}),
    "tool": _tool,
    "child": _child,
}

ACTS = st.lists(
    st.tuples(
        st.sampled_from(["text", "text", "text", *_ACTS]),
        st.text(st.characters(codec="utf-8"), max_size=8),
    ),
    max_size=25,
)
"""What agents may do, mostly talk."""

"""What the interrupts of a graph ask, and what it is resumed with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from langgraph.types import Command, Interrupt

from catenary.encoding import encode
from catenary.events import InputKind, InputRequested
from catenary.integrations.answers import reason_of
from catenary.integrations.relay import fitting
from catenary.questions import is_approved, request

INTERRUPT = "__interrupt__"
"""Where a state holds the interrupts of its graph."""

_DECISIONS = frozenset({"approve", "edit", "reject", "respond"})


class Asked(NamedTuple):
    """One question of an interrupt, and how the graph wants its answer."""

    interrupt_id: str
    form: str
    request: InputRequested

    @property
    def place(self) -> list[str]:
        """What is kept of it until it is answered."""
        return [self.interrupt_id, self.form]


def asked_by(state: object) -> list[Asked]:
    """Return what the interrupts of a state ask its user, one question or several each."""
    interrupts = state.get(INTERRUPT, ()) if isinstance(state, dict) else ()
    return [asked for interrupt in interrupts for asked in _asked(interrupt)]


def _asked(interrupt: Interrupt[Any]) -> list[Asked]:
    value = interrupt.value
    if isinstance(value, dict) and isinstance(value.get("action_requests"), list):
        return [
            Asked(interrupt.id, "decisions", _approval(action))
            for action in value["action_requests"]
        ]
    if isinstance(value, dict) and value.get("type") == "tool_approval":
        return [Asked(interrupt.id, "decision", _approval(value))]
    return [
        Asked(interrupt.id, "value", _question(value, getattr(interrupt, "response_schema", None)))
    ]


def _approval(action: dict[str, Any]) -> InputRequested:
    """Return the question of a tool call that LangChain's middleware holds up."""
    call = action.get("tool_call_id")
    return request(
        action.get("description"),
        kind=InputKind.APPROVAL,
        tool_call_id=fitting(call) if call else None,
        tool_name=action.get("name"),
        tool_input=action.get("args"),
    )


def _question(value: Any, response_schema: object) -> InputRequested:
    schema = response_schema if isinstance(response_schema, dict) else None
    if isinstance(value, dict) and isinstance(value.get("question"), str):
        kind = value.get("kind", InputKind.QUESTION)
        return request(value["question"], kind=kind, schema=value.get("schema", schema))
    text = value if isinstance(value, str) else encode(value).decode()
    return request(text, schema=schema)


def resumed(places: Iterable[list[str]], answers: Iterable[Any]) -> Command[Any]:
    """Return what a graph is resumed with after these answers."""
    given: dict[str, Any] = {}
    for (interrupt_id, form), answer in zip(places, answers, strict=True):
        if form == "decisions":
            decisions = given.setdefault(interrupt_id, {"decisions": []})["decisions"]
            decisions.append(_decision(answer))
        else:
            given[interrupt_id] = _decision(answer) if form == "decision" else answer
    return Command(resume=given)


def _decision(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict) and answer.get("type") in _DECISIONS:
        return answer
    if is_approved(answer):
        return {"type": "approve"}
    reason = reason_of(answer)
    return {"type": "reject", **({"message": reason} if reason else {})}

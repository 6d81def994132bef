"""Whether the events that a test collected are complete: dense, in order, every run with its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from catenary.events import RUN_ENDS, EventType, WebSocketEvent


def assert_complete(
    events: Iterable[WebSocketEvent | Mapping[str, Any]], *, runs: int | None = None
) -> None:
    """
    Assert that events are all of one user's, from the first of them to the last.

    Their numbers are dense and rise, merged ranges counted; every run among
    them begins with ``agent_started``, has one end, which is its last event,
    and each of its tools an end of its own. With ``runs`` there are so many.

    Args:
        events: As :class:`catenary.client.Client` or ``factory.events`` brings
            them, or the dicts of the wire.
        runs: How many runs there must be, if that is known.

    Raises:
        AssertionError: With everything that does not hold.
    """
    taken = [_as_event(event) for event in events]
    problems = [*_order_problems(taken), *_run_problems(taken)]
    seen = {event.run_id for event in taken if event.type == EventType.AGENT_STARTED}
    if runs is not None and len(seen) != runs:
        problems.append(f"{len(seen)} runs began, not {runs}")
    if problems:
        raise AssertionError("the events are not complete:\n  " + "\n  ".join(problems))


def _as_event(event: WebSocketEvent | Mapping[str, Any]) -> WebSocketEvent:
    return event if isinstance(event, WebSocketEvent) else msgspec.convert(event, WebSocketEvent)


def _order_problems(events: list[WebSocketEvent]) -> Iterator[str]:
    for before, event in pairwise(events):
        first = event.from_seq or event.seq
        if event.position.epoch != before.position.epoch:
            yield f"{event.id} follows {before.id}: another epoch, and what lies between is lost"
        elif first != before.seq + 1:
            yield f"{event.id} follows {before.id}: the next number is {before.seq + 1}"


def _run_problems(events: list[WebSocketEvent]) -> Iterator[str]:
    by_run: defaultdict[str, list[WebSocketEvent]] = defaultdict(list)
    for event in events:
        if event.run_id is not None and event.type in _OF_RUNS:
            by_run[event.run_id].append(event)
    for run_id, own in by_run.items():
        types = [event.type for event in own]
        ends = [type_ for type_ in types if type_ in RUN_ENDS]
        if types[0] != EventType.AGENT_STARTED:
            yield f"run {run_id} begins with {types[0]}"
        if types.count(EventType.AGENT_STARTED) > 1:
            yield f"run {run_id} starts {types.count(EventType.AGENT_STARTED)} times"
        if len(ends) != 1:
            yield f"run {run_id} has {len(ends)} ends: {', '.join(ends) or 'it goes on'}"
        elif types[-1] not in RUN_ENDS:
            yield f"run {run_id} goes on after its {ends[0]} with {types[-1]}"
        yield from _tool_problems(run_id, own)


_OF_RUNS = frozenset(EventType) - {
    EventType.USER_MESSAGE,
    EventType.ERASED,
    EventType.PROGRESS_UPDATE,
}
"""The types that stand under the grammar of a run; others may come beside it."""


def _tool_problems(run_id: str, events: list[WebSocketEvent]) -> Iterator[str]:
    open_tools: dict[str, str] = {}
    for event in events:
        call = str(event.data.get("tool_call_id"))
        if event.type == EventType.TOOL_EXECUTING:
            open_tools[call] = str(event.data.get("tool_name"))
        elif event.type == EventType.TOOL_COMPLETED and open_tools.pop(call, None) is None:
            yield f"run {run_id} ends the tool {call}, which had not begun"
    for call, name in open_tools.items():
        yield f"run {run_id} leaves the tool {name} ({call}) open"

"""The entries that end a run: what closes its open tools, then its end."""

from __future__ import annotations

from collections.abc import Mapping

from catenary.encoding import encode
from catenary.envelope import Envelope
from catenary.eventlog.entry import Entry
from catenary.eventlog.receipt import Receipt
from catenary.events import AgentCancelled, AgentError, EventType, Payload, ToolCompleted
from catenary.grammar import OpenTool, Step


def run_entry(
    envelope: Envelope,
    type: EventType,
    payload: Payload,
    step: Step,
    *,
    at: int,
    tool_call_id: str = "",
) -> Entry:
    """Return the entry of a built-in event of a run; ``at`` in ms since 1970."""
    return Entry(
        str(type),
        envelope.body(at, encode(payload)),
        Receipt(),
        envelope.thread_id,
        envelope.run_id,
        step=step,
        tool_call_id=tool_call_id,
    )


def ending_entries(
    envelope: Envelope,
    open_tools: Mapping[str, OpenTool],
    end: AgentError | AgentCancelled,
    *,
    at: int,
) -> list[Entry]:
    """Return failed ``tool_completed`` events for the open tools, then the end."""
    is_error = isinstance(end, AgentError)
    because = end.message if isinstance(end, AgentError) else "the run was cancelled"
    closed = [
        run_entry(
            envelope,
            EventType.TOOL_COMPLETED,
            ToolCompleted(
                tool_name=tool.name,
                tool_call_id=tool_call_id,
                success=False,
                error=because,
                duration_ms=max(0, at - tool.began_at),
            ),
            Step.TOOL_END,
            at=at,
            tool_call_id=tool_call_id,
        )
        for tool_call_id, tool in open_tools.items()
    ]
    type_, step = (
        (EventType.AGENT_ERROR, Step.FAIL) if is_error else (EventType.AGENT_CANCELLED, Step.CANCEL)
    )
    return [*closed, run_entry(envelope, type_, end, step, at=at)]


def producer_lost(holder: str, last_heard: int) -> AgentError:
    """Return the end of a run whose producer died; ``last_heard`` in ms since 1970."""
    return AgentError(
        code="producer_lost",
        message="the process that produced this run was lost",
        retryable=True,
        holder={"holder": holder, "last_heard": last_heard},
    )

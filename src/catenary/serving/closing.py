"""Ending a run from outside, at once."""

from __future__ import annotations

from catenary.envelope import Envelope
from catenary.eventlog.base import EventLog
from catenary.eventlog.closing import ending_entries
from catenary.eventlog.receipt import Receipt
from catenary.events import AgentError

CODE = "closed"


def close_run(log: EventLog, log_id: str, run_id: str, reason: str | None) -> Receipt | None:
    """
    End a run that this process holds, and refuse what its agent still emits.

    Returns None if it has ended, or is held by nobody here. Raises ``LogFull``
    as :meth:`EventLog.append` does.
    """
    stream = log.stream(log_id)
    run = stream.runs.get(run_id)
    if run is None or not run.is_open:
        return None
    envelope = Envelope(
        user_id=run.user_id or log_id,
        thread_id=run.thread_id,
        run_id=run_id,
        agent_name=run.agent_name,
        parent_run_id=run.parent_run_id,
    )
    end = AgentError(code=CODE, message=reason or "an operator closed this run", retryable=False)
    receipt = log.end_run(
        stream, run_id, lambda tools: ending_entries(envelope, tools, end, at=log.now_ms())
    )
    run.grammar.close("an operator closed it")
    return receipt

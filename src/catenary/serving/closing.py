"""Ending a run from outside, at once."""

from __future__ import annotations

from catenary.envelope import Envelope
from catenary.eventlog.base import EventLog
from catenary.eventlog.closing import ending_entries
from catenary.events import AgentError

CODE = "closed"
_BECAUSE = "an operator closed it"


async def close_run(log: EventLog, log_id: str, run_id: str, reason: str | None) -> bool:
    """
    End a run, on whatever node it lives, and refuse what its agent still emits.

    Returns whether it was open; once it has ended. Raises ``LogFull`` as
    :meth:`EventLog.append` does.
    """
    end = AgentError(code=CODE, message=reason or "an operator closed this run", retryable=False)
    stream = log.stream(log_id)
    run = stream.runs.get(run_id)
    if run is None or not run.is_open:
        return await log.close_run(log_id, run_id, end, _BECAUSE)
    envelope = Envelope(
        user_id=run.user_id or log_id,
        thread_id=run.thread_id,
        run_id=run_id,
        agent_name=run.agent_name,
        parent_run_id=run.parent_run_id,
    )
    receipt = log.end_run(
        stream, run_id, lambda tools: ending_entries(envelope, tools, end, at=log.now_ms())
    )
    run.grammar.close(_BECAUSE)
    await receipt
    return True

"""Runs that should have ended: their lease ran out, or they were cancelled and go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from catenary.envelope import Envelope
from catenary.errors import LifecycleError, LogFull, LogUnavailable, RunClosed
from catenary.eventlog.closing import ending_entries, producer_lost
from catenary.eventlog.entry import Entry
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.stream import HeldRun, Stream
from catenary.events import AgentCancelled, AgentError
from catenary.grammar import OpenTool

CANCEL_PATIENCE_MS = 10_000
"""How long a run may go on after someone asked for its cancel."""

SILENT = "its producer was silent for longer than its lease"
NOT_STOPPED = "it was cancelled and did not stop in time"

_log = logging.getLogger("catenary.eventlog")


class RunEnder(Protocol):
    """The part of an event log that ends runs."""

    holder: str

    def end_run(
        self,
        stream: Stream,
        run_id: str,
        entries_for: Callable[[dict[str, OpenTool]], Sequence[Entry]],
    ) -> Receipt: ...


def close_overdue_runs(log: RunEnder, stream: Stream, now_ms: int) -> None:
    """End the runs of a stream that should have ended, and fence them."""
    for run in list(stream.runs.values()):
        end = _overdue(run, log.holder, now_ms) if run.is_open and run.first_seq else None
        if end is not None:
            close_held_run(log, stream, run, end, now_ms)


def _overdue(run: HeldRun, holder: str, now_ms: int) -> AgentError | AgentCancelled | None:
    asked_at = run.cancel_requested_at
    if asked_at is not None and now_ms - asked_at >= CANCEL_PATIENCE_MS:
        return AgentCancelled(reason=run.cancel_reason, by=run.cancel_by)
    if run.lease is not None and now_ms - run.last_at > run.lease * 1000:
        return producer_lost(holder, run.last_at)
    return None


def close_held_run(
    log: RunEnder, stream: Stream, run: HeldRun, end: AgentError | AgentCancelled, now_ms: int
) -> None:
    """End a run that this process holds, and fence it; one that has ended meanwhile is left."""
    envelope = Envelope(
        user_id=run.user_id or stream.log_id,
        thread_id=run.thread_id,
        run_id=run.run_id,
        agent_name=run.agent_name,
        parent_run_id=run.parent_run_id,
    )
    try:
        log.end_run(
            stream, run.run_id, lambda tools: ending_entries(envelope, tools, end, at=now_ms)
        )
    except (RunClosed, LifecycleError):
        # Its producer was faster, or its events were erased meanwhile.
        return
    except (LogFull, LogUnavailable) as error:
        _log.warning("run %s is not closed yet: %s", run.run_id, error)
        return
    run.grammar.close(SILENT if isinstance(end, AgentError) else NOT_STOPPED)

"""Runs of logs that several processes share: taking one over, and ending one from outside."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from catenary.envelope import Envelope
from catenary.eventlog.closing import ending_entries
from catenary.eventlog.committer.stream import CommitStream
from catenary.eventlog.entry import Entry
from catenary.eventlog.model import RunInfo
from catenary.eventlog.stream import HeldRun
from catenary.events import AgentCancelled, AgentError
from catenary.grammar import OpenTool, RunStage
from catenary.wires.native import event_of

Cancel = tuple[int, str | None, str | None]
"""When a cancel was asked for, why, and by whom."""

_encode = msgspec.json.Encoder().encode


class RunStart(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the start of a run says, for as long as the run is known."""

    started_at: int
    user_id: str | None = None
    thread_id: str | None = None
    agent_name: str | None = None
    parent_run_id: str | None = None
    lease: float | None = None

    @classmethod
    def of(cls, entry: Entry) -> RunStart:
        """Return what a start says that waits for its number."""
        event = event_of(entry.to_record("new", 1, 0))
        return cls(
            started_at=event.timestamp,
            user_id=event.user_id,
            thread_id=event.thread_id,
            agent_name=event.agent_name,
            parent_run_id=event.parent_run_id,
            lease=event.data.get("lease"),
        )

    def packed(self) -> bytes:
        """Return it as JSON."""
        return _encode(self)


class StoredRun(NamedTuple):
    """A run with all that is stored of it; ``cancel`` is when, why and by whom."""

    info: RunInfo
    user_id: str | None
    tools: dict[str, OpenTool]
    cancel: Cancel | None


class StoredKey(NamedTuple):
    """Where the event is that was appended under an idempotency key, and its digest."""

    epoch: str
    seq: int
    digest: bytes


def hold(stream: CommitStream, stored: StoredRun) -> HeldRun:
    """
    Let this process hold an open run from now on; under the log's lock.

    What was known of it here is brought up to what the store knows.
    """
    info = stored.info
    run = stream.runs.get(info.run_id)
    if run is None:
        run = stream.runs[info.run_id] = HeldRun(info.run_id, info.thread_id)
    run.grammar.restore((RunStage.OPEN, dict(stored.tools)))
    run.user_id, run.agent_name = stored.user_id, info.agent_name
    run.thread_id, run.parent_run_id = info.thread_id, info.parent_run_id
    run.lease, run.started_at, run.first_seq = info.lease, info.started_at, info.first_seq
    run.last_seq, run.last_at = info.last_seq, info.last_at
    if stored.cancel is not None:
        run.request_cancel(*stored.cancel)
    stream.open_runs.add(info.run_id)
    return run


def ending(stored: StoredRun, end: AgentError | AgentCancelled, now: float) -> list[Entry]:
    """Return the entries that end an open run from outside, its open tools first."""
    info = stored.info
    envelope = Envelope(
        user_id=stored.user_id or info.log_id,
        thread_id=info.thread_id,
        run_id=info.run_id,
        agent_name=info.agent_name,
        parent_run_id=info.parent_run_id,
    )
    return ending_entries(envelope, stored.tools, end, at=int(now * 1000))

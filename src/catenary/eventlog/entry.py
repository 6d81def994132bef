"""Entries: events accepted by a log and not yet committed."""

from __future__ import annotations

import msgspec

from catenary.eventlog.receipt import Receipt
from catenary.grammar import RUN_END_STEPS, OpenTool, Step
from catenary.record import Record


class Entry(msgspec.Struct):
    """
    One event on its way into a log.

    ``body``, ``merge`` and ``delta_at`` are as in :class:`catenary.record.Record`.
    ``key`` is the idempotency key: a log appends one entry a key and answers
    repeats with the first one's position. ``digest`` tells whether a repeat
    has the same content. Entries with the same ``whole``, if it is not 0, are
    appended all or not at all.
    """

    type: str
    body: bytes
    receipt: Receipt
    thread_id: str | None = None
    run_id: str | None = None
    merge: str | None = None
    delta_at: int = 0
    step: Step = Step.ASIDE
    tool_call_id: str = ""
    tool: OpenTool | None = None
    key: str | None = None
    digest: bytes = b""
    whole: int = 0

    @property
    def is_run_end(self) -> bool:
        """Whether it ends its run."""
        return self.step in RUN_END_STEPS

    def to_record(self, epoch: str, seq: int, at: int) -> Record:
        """Return the record that this entry becomes when it is committed."""
        return Record(
            seq,
            epoch,
            self.type,
            self.body,
            at,
            self.thread_id,
            self.run_id,
            self.merge,
            self.delta_at,
        )

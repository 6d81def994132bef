"""What entries do to the runs of a log: starts, tools, ends. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from catenary.eventlog.entry import Entry
from catenary.eventlog.nats import records
from catenary.eventlog.nats.changing import IDLE_SECONDS
from catenary.eventlog.nats.names import LogNames, token
from catenary.eventlog.nats.posts import Post
from catenary.eventlog.nats.records import RunEnd, RunNote, RunRecord
from catenary.eventlog.nats.state import Held, State
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.shared.runs import RunStart
from catenary.grammar import OpenTool, Step


class RunChanges:
    """The open runs of a log in the making, and what is stored beside the batches."""

    def __init__(self, stream: NatsStream, state: State, holder: str, at: int) -> None:
        self._stream = stream
        self._holder = holder
        self._at = at
        self.open: dict[str, Held] = dict(state.runs)
        self.extras: dict[str, Post] = {}
        """By subject: of a run that begins and ends here only the end is stored."""
        self.ended = 0

    def create(self, subject: str, record: Any) -> Post:
        """Return what stores a record that must not be there yet."""
        return Post(subject, records.encode(record), expected=0, ttl=IDLE_SECONDS)

    def note(self, entry: Entry, run_id: str, seq: int) -> None:
        """Take an entry that gets a number."""
        if entry.step is Step.START:
            self._start(entry, run_id, seq)
            return
        held = self.open.get(run_id)
        if held is None:
            return
        if entry.is_run_end:
            self._end(entry, run_id, held, seq)
            return
        changed: dict[str, Any] = {"last_seq": seq, "last_at": self._at}
        if entry.step is Step.TOOL_START:
            tool = entry.tool or OpenTool("?", 0)
            changed["tools"] = held.tools | {entry.tool_call_id: tuple(tool)}
        elif entry.step is Step.TOOL_END:
            changed["tools"] = {
                call: tool for call, tool in held.tools.items() if call != entry.tool_call_id
            }
        self.open[run_id] = msgspec.structs.replace(held, **changed)

    def _start(self, entry: Entry, run_id: str, seq: int) -> None:
        start = self._stream.starts[run_id] = RunStart.of(entry)
        lease = int((start.lease or 0) * 1000)
        self.open[run_id] = Held(self._holder, seq, seq, self._at, lease, start.parent_run_id)
        record = RunRecord(self._stream.log_id, run_id, seq, start)
        subject = self._stream.names.runs + token(run_id)
        self.extras[subject] = Post(subject, records.encode(record), expected=0)

    def _end(self, entry: Entry, run_id: str, held: Held, seq: int) -> None:
        start = self._stream.starts.get(run_id) or RunStart(started_at=held.last_at)
        record = RunRecord(self._stream.log_id, run_id, held.first_seq, start)
        self.close(record, RunEnd(entry.type, seq, self._at, held.cancel))
        note = RunNote(self._stream.log_id, run_id, self._at, seq)
        subject = self._stream.names.ends + token(run_id)
        self.extras[subject] = Post(subject, records.encode(note), ttl=IDLE_SECONDS)

    def close(self, record: RunRecord, end: RunEnd) -> None:
        """An open run ends."""
        del self.open[record.run_id]
        self.ended += 1
        post = scrubbed(self._stream.names, msgspec.structs.replace(record, end=end))
        is_new = post.subject in self.extras
        self.extras[post.subject] = post._replace(expected=0, replaces=False) if is_new else post


def scrubbed(names: LogNames, record: RunRecord) -> Post:
    """Return what stores all that stays known of a run that has ended."""
    subject = names.runs + token(record.run_id)
    return Post(subject, records.encode(record), ttl=IDLE_SECONDS, replaces=True)

"""The table of runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec

from catenary.eventlog.entry import Entry
from catenary.eventlog.model import RunInfo
from catenary.events import RUN_ENDS
from catenary.grammar import OpenTool, Step
from catenary.record import Record
from catenary.wires.native import event_of

_encode = msgspec.msgpack.Encoder().encode
_decode_tools = msgspec.msgpack.Decoder(dict[str, tuple[str, int]]).decode

_COLUMNS = (
    "logs.log_id, run_id, thread_id, agent_name, parent_run_id, is_open, holder, first_seq, "
    "last_seq, started_at, last_at, lease, cancel_requested_at, end_type, kept_fold"
)


def is_known_run(connection: sqlite3.Connection, log: int, run_id: str) -> bool:
    """Whether a log has, or had, a run with this id."""
    found = connection.execute("SELECT 1 FROM runs WHERE log = ? AND run_id = ?", (log, run_id))
    return found.fetchone() is not None


def has_run(connection: sqlite3.Connection, log_id: str, run_id: str) -> bool:
    """Return whether a log has, or had, a run with this id."""
    found = connection.execute(
        "SELECT 1 FROM runs JOIN logs USING (log) WHERE log_id = ? AND run_id = ?",
        (log_id, run_id),
    )
    return found.fetchone() is not None


def open_tools(packed: bytes | None) -> dict[str, OpenTool]:
    """Return the tools at work, by ``tool_call_id``."""
    if packed is None:
        return {}
    return {call: OpenTool(*tool) for call, tool in _decode_tools(packed).items()}


def run_infos(
    connection: sqlite3.Connection, condition: str, values: tuple[Any, ...] = ()
) -> Iterator[RunInfo]:
    """Return what is stored of runs; ``condition`` is SQL after WHERE, with its order."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM runs JOIN logs USING (log) WHERE {condition}",  # noqa: S608
        values,
    )
    names = tuple(RunInfo.__struct_fields__)
    for row in rows:
        about = dict(zip(names, row, strict=True))
        about["is_open"] = bool(about["is_open"])
        yield RunInfo(**about)


class RunWriter:
    """Writes what the entries of one batch do to their runs."""

    def __init__(self, connection: sqlite3.Connection, holder: str) -> None:
        self._connection = connection
        self._holder = holder
        self._tools: dict[tuple[int, str], dict[str, OpenTool]] = {}

    def note(self, log: int, entry: Entry, record: Record) -> None:
        """Take an entry that starts or ends a run or a tool."""
        run_id = entry.run_id
        assert run_id is not None
        if entry.step is Step.START:
            self._insert(log, run_id, record)
        elif entry.step is Step.TOOL_START:
            self._tools_of(log, run_id)[entry.tool_call_id] = entry.tool or OpenTool("", record.at)
        elif entry.step is Step.TOOL_END:
            self._tools_of(log, run_id).pop(entry.tool_call_id, None)
        elif record.type in RUN_ENDS:
            self._tools.pop((log, run_id), None)
            self._connection.execute(
                "UPDATE runs SET is_open = 0, end_type = ?, last_seq = ?, last_at = ?, "
                "open_tools = NULL WHERE log = ? AND run_id = ?",
                (record.type, record.seq, record.at, log, run_id),
            )

    def _insert(self, log: int, run_id: str, record: Record) -> None:
        event = event_of(record)
        self._connection.execute(
            "INSERT INTO runs (log, run_id, user_id, thread_id, agent_name, parent_run_id, holder, "
            "is_open, is_reported, compacted, first_seq, last_seq, started_at, last_at, lease) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 1, 0, 0, ?, ?, ?, ?, ?)",
            (
                log,
                run_id,
                event.user_id,
                event.thread_id,
                event.agent_name,
                event.parent_run_id,
                self._holder,
                record.seq,
                record.seq,
                event.timestamp,
                record.at,
                event.data.get("lease"),
            ),
        )

    def _tools_of(self, log: int, run_id: str) -> dict[str, OpenTool]:
        tools = self._tools.get((log, run_id))
        if tools is None:
            row = self._connection.execute(
                "SELECT open_tools FROM runs WHERE log = ? AND run_id = ?", (log, run_id)
            ).fetchone()
            tools = self._tools[log, run_id] = open_tools(row[0] if row else None)
        return tools

    def flush(self) -> None:
        """Store the tools at work."""
        for (log, run_id), tools in self._tools.items():
            self._connection.execute(
                "UPDATE runs SET open_tools = ? WHERE log = ? AND run_id = ?",
                (_encode(tools) if tools else None, log, run_id),
            )
        self._tools.clear()

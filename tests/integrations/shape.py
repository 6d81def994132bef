"""The shape of a conversation in the log: what is the same whatever the framework."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from catenary import WebSocketEvent
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "how-to" / "frameworks.md"
_TOGETHER = ("tool_executing", "tool_completed")
"""Tools at work at the same time begin and end in any order."""


class Row(NamedTuple):
    """One event: which message and tool call it belongs to, and the fields of its data."""

    type: str
    message: str
    call: str
    fields: str


def shape_of(events: Sequence[WebSocketEvent]) -> list[Row]:
    """Return the events of one run, with pieces of one part as one."""
    messages: dict[str, str] = {}
    rows: list[Row] = []
    for event in events:
        data = event.data
        message = data.get("message_id", "")
        number = messages.setdefault(message, str(len(messages) + 1)) if message else ""
        fields = [f"{name} {data['part']}" if name == "part" else name for name in sorted(data)]
        if event.type == "agent_completed":
            fields += [f"usage.{name}" for name in sorted(data["usage"])]
        row = Row(event.type, number, data.get("tool_call_id", ""), ", ".join(fields))
        if event.type != "agent_delta" or row != rows[-1]:
            rows.append(row)
    return _ordered(rows)


def _ordered(rows: list[Row]) -> list[Row]:
    ordered: list[Row] = []
    for row in rows:
        at = len(ordered)
        while at and row.type in _TOGETHER and ordered[at - 1].type == row.type > "":
            if ordered[at - 1].call <= row.call:
                break
            at -= 1
        ordered.insert(at, row)
    return ordered


def documented() -> list[Row]:
    """Return the shape that the documents show as a table."""
    table = PAGE.read_text().partition("| event | message | call | fields |")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", table, re.MULTILINE)
    return [
        Row(type, message.strip(), call.strip("` "), fields.replace("`", "").strip())
        for type, message, call, fields in rows
    ]


def said(message: int) -> Row:
    """Return the row of a message's text."""
    return Row("agent_delta", str(message), "", "delta, message_id, part text")


def thought(message: int) -> Row:
    """Return the row of a message's reasoning."""
    return Row("agent_delta", str(message), "", "delta, message_id, part reasoning")


def is_input(row: Row) -> bool:
    """Whether this is the input of a tool, while it grows."""
    return row.type == "agent_delta" and bool(row.call)

"""Events and tables as they look in a terminal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from catenary.events import EventType, WebSocketEvent

_STYLES = {
    EventType.AGENT_STARTED: "bold cyan",
    EventType.AGENT_THINKING: "dim",
    EventType.TOOL_EXECUTING: "magenta",
    EventType.TOOL_COMPLETED: "magenta",
    EventType.AGENT_COMPLETED: "bold green",
    EventType.AGENT_ERROR: "bold red",
    EventType.AGENT_CANCELLED: "bold yellow",
    EventType.USER_MESSAGE: "bold blue",
    EventType.PROGRESS_UPDATE: "blue",
}
_TELLING = ("delta", "thinking", "content", "message", "reason", "tool_name", "result", "task")
"""What of an event's data says the most, the first that there is."""
_WIDTH = 120


def event_line(event: WebSocketEvent) -> Text:
    """Return an event as one coloured line: number, time, type, run, and what it says."""
    at = dt.datetime.fromtimestamp(event.timestamp / 1000, dt.UTC).astimezone()
    style = _STYLES.get(EventType(event.type), "") if event.type in list(EventType) else ""
    return Text.assemble(
        (f"{event.seq:>7} ", "dim"),
        (f"{at:%H:%M:%S} ", "dim"),
        (f"{event.type:<16} ", style),
        (f"{event.run_id or '-':<12.12} ", "dim"),
        _said(event.data),
    )


def _said(data: Any) -> str:
    if not isinstance(data, Mapping):
        return str(data)[:_WIDTH]
    told = next((data[name] for name in _TELLING if data.get(name) is not None), None)
    text = str(dict(data) if told is None else told)
    return " ".join(text.split())[:_WIDTH] if text.strip() else repr(text)


def ago(seconds: float) -> str:
    """Return a span of time in words: ``4.2 s``, ``12 min``, ``3 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def print_table(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """Print a table, or that there is nothing to show."""
    shown = [list(map(str, row)) for row in rows]
    if not shown:
        console.print(f"{title}: none", style="dim")
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in shown:
        table.add_row(*map(Text, row))
    console.print(table)

"""``config`` and ``doctor``."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from catenary.cli.diagnosis import Finding, Grade, examined
from catenary.cli.options import SERVER_SETTINGS, takes_settings
from catenary.cli.rendering import print_table
from catenary.cli.teaching import command
from catenary.errors import ConfigError
from catenary.settings import load, shown

commands = typer.Typer()

_MARKS = {
    Grade.GOOD: Text("good", style="green"),
    Grade.NOTE: Text("note", style="yellow"),
    Grade.WRONG: Text("wrong", style="bold red"),
}


@command(commands, "catenary config", "CATENARY_PORT=9000 catenary config --json")
@takes_settings(*SERVER_SETTINGS, "url")
def config(
    options: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """
    Show every setting: its environment variable, its value, and where that comes from.

    Secrets are not shown, only whether they are set.
    """
    rows = shown(load(options), options)
    if as_json:
        print(msgspec.json.encode([row._asdict() for row in rows]).decode())
        return
    console = Console(highlight=False)
    columns = ("variable", "value", "source", "what")
    print_table(
        console, "Settings", columns, ([r.variable, r.value, r.source, r.about] for r in rows)
    )


@command(commands, "catenary doctor", "catenary doctor --log sqlite:///events.db --port 8000")
@takes_settings(*SERVER_SETTINGS)
def doctor(options: dict[str, Any]) -> None:
    """
    Check what a server needs here: settings, log, clock, limits, versions. Exit with 1 if it fails.

    Each finding says what to do.
    """
    try:
        settings = load(options)
    except ConfigError as error:
        findings = [Finding(Grade.WRONG, "settings", str(error))]
    else:
        findings = asyncio.run(examined(settings))
    table = Table(box=SIMPLE_HEAD)
    for column in ("", "what", "finding"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(_MARKS[finding.grade], finding.what, Text(finding.text))
    Console(highlight=False).print(table)
    if any(finding.grade is Grade.WRONG for finding in findings):
        raise typer.Exit(1)

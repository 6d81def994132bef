"""The commands together, and what becomes of their errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import httpx
import typer
from rich.console import Console

from catenary.cli import checking, emitting, operating, serving, upkeep, validating, watching
from catenary.errors import CatenaryError, ConfigError, UsageError

MISCONFIGURED = 2

app = typer.Typer(
    name="catenary",
    help=(
        "Every event of an agent reaches its user: once, in order, resumed where it broke.\n\n"
        "Begin with [bold]catenary demo[/bold], which shows it in a browser. Each command has "
        "examples: [bold]catenary COMMAND --help[/bold]. Every setting is also an environment "
        "variable; [bold]catenary config[/bold] lists them."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for room in (serving, watching, emitting, operating, checking, validating):
    app.registered_commands += room.commands.registered_commands
app.add_typer(upkeep.commands, name="log")


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command line; exit with 2 for a wrong setting, 1 for what failed.

    Raises:
        SystemExit: Always.
    """
    try:
        app(args=None if arguments is None else list(arguments))
    except (ConfigError, UsageError) as error:
        _complain(str(error))
        sys.exit(MISCONFIGURED)
    except (CatenaryError, httpx.HTTPError) as error:
        _complain(str(error) or type(error).__name__)
        sys.exit(1)


def _complain(text: str) -> None:
    console = Console(stderr=True, highlight=False)
    console.print("[bold red]catenary:[/bold red]", end=" ")
    console.print(text, markup=False, soft_wrap=True)

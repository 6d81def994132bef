"""Commands whose help ends with examples."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape


def command(
    commands: typer.Typer, *examples: str, name: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a command; its docstring and ``examples`` are the help."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        paragraphs = escape(inspect.getdoc(function) or "").split("\n\n")
        about = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        # A paragraph that begins with \b keeps its lines.
        shown = "\n".join(["\b", "[bold]Examples[/bold]", *(f"  {escape(e)}" for e in examples)])
        commands.command(name, help=f"{about}\n\n{shown}")(function)
        return function

    return register

"""A campaign in the terminal: its progress, a table while it runs, and what it found."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from catenary.validate.campaign import Campaign
from catenary.validate.campaign import Progress as Step
from catenary.validate.report import Regression
from catenary.validate.results import Outcome, Report, Verdict
from catenary.validate.rows import Row

STYLES = {
    Verdict.HOLDS: "green",
    Verdict.FALLS_SHORT: "bold red",
    Verdict.LEFT_OUT: "yellow",
}


def list_rows(console: Console, rows: Sequence[Row]) -> None:
    """Show what could be asked."""
    table = Table(box=SIMPLE_HEAD)
    for column in ("suite", "row", "asked"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.suite, Text(row.name), Text(row.asked))
    console.print(table)


class _Board:
    """What is shown while a campaign runs: a line for each suite, and a bar for all."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._suites = list(dict.fromkeys(row.suite for row in rows))
        self._totals = Counter(row.suite for row in rows)
        self._counts: dict[str, Counter[Verdict]] = {suite: Counter() for suite in self._suites}
        self._running: dict[Row, None] = {}
        self._progress = Progress(
            BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
        )
        self._task = self._progress.add_task("", total=len(rows))

    def note(self, step: Step) -> None:
        row, outcome = step.row, step.outcome
        if outcome is None:
            self._running[row] = None
            self._progress.update(self._task, description=f"{row.suite}: {row.name}")
        else:
            del self._running[row]
            self._counts[row.suite][outcome.verdict] += 1
            self._progress.advance(self._task)

    def finish(self) -> None:
        self._progress.update(self._task, description="done")

    def __rich__(self) -> Group:
        table = Table(box=SIMPLE_HEAD)
        table.add_column("suite")
        for column in ("rows", "hold", "fall short", "not asked"):
            table.add_column(column, justify="right")
        table.add_column("now", overflow="ellipsis", no_wrap=True, max_width=40)
        for suite in self._suites:
            counts = self._counts[suite]
            short = counts[Verdict.FALLS_SHORT]
            table.add_row(
                suite,
                f"{sum(counts.values())}/{self._totals[suite]}",
                Text(str(counts[Verdict.HOLDS]), "green"),
                Text(str(short) if short else "", "bold red"),
                Text(str(counts[Verdict.LEFT_OUT] or ""), "yellow"),
                Text(", ".join(row.name for row in self._running if row.suite == suite), "dim"),
            )
        return Group(table, self._progress)


def show_campaign(console: Console, campaign: Campaign) -> Report:
    """Run a campaign, show how it goes, and say what it found."""
    # What breaks here is broken on purpose; the rows say what matters of it.
    logging.getLogger("catenary").addHandler(logging.NullHandler())
    console.print(f"Seed {campaign.seed}, {campaign.scale} campaign, {len(campaign.rows)} rows")
    board = _Board(campaign.rows)
    with Live(board, console=console, refresh_per_second=8) as live:

        def tell(step: Step) -> None:
            board.note(step)
            if step.outcome is not None and _is_worth_a_line(console, step.outcome):
                live.console.print(_line(step.outcome), soft_wrap=True)

        report = asyncio.run(campaign.run(tell))
        board.finish()
    _conclude(console, report)
    return report


def _is_worth_a_line(console: Console, outcome: Outcome) -> bool:
    """A terminal has the table; a file has every row."""
    return outcome.verdict is Verdict.FALLS_SHORT or not console.is_terminal


def _line(outcome: Outcome) -> Text:
    line = Text.assemble(
        (f"{outcome.verdict:<12}", STYLES[outcome.verdict]),
        (f"{outcome.name}", "bold"),
        f": {outcome.measured}" if outcome.measured else "",
    )
    style = "red" if outcome.verdict is Verdict.FALLS_SHORT else "dim"
    for fault in (*outcome.faults, *outcome.slow):
        line.append(f"\n{'':<12}{fault}", style)
    return line


def _conclude(console: Console, report: Report) -> None:
    counts = {verdict: len(report.of(verdict)) for verdict in Verdict}
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    style = "bold green" if report.holds else "bold red"
    console.print(f"{len(report.outcomes)} rows in {report.seconds:.1f} s: {said}", style=style)
    reasons = Counter(outcome.faults[0] for outcome in report.of(Verdict.LEFT_OUT))
    for reason, count in reasons.items():
        console.print(f"{count} rows left out: {reason}", style="yellow", markup=False)


def show_regressions(console: Console, regressions: Sequence[Regression]) -> None:
    """Say what became worse since an earlier report."""
    if not regressions:
        console.print("Nothing is worse than in the earlier report.", style="green")
    for one in regressions:
        console.print(f"worse: {one.suite}: {one.row}: {one.text}", style="bold red", markup=False)

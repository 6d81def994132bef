"""What became worse since an earlier campaign. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from catenary.validate.results import Better, Figure, Outcome, Report, Verdict

TOLERANCE = 0.3
"""A figure counts as worse by more than this share: shared machines differ by a fifth between runs."""


class Regression(msgspec.Struct, frozen=True, kw_only=True):
    """One row that is worse than it was."""

    suite: str
    row: str
    text: str


def compare(earlier: Report, later: Report) -> list[Regression]:
    """
    Return what is worse in the later report: rows that held and fall short, figures, lost rows.

    Rows that only one of them asked are passed over, unless the earlier one held
    and the later one could not ask it.
    """
    before = {outcome.name: outcome for outcome in earlier.outcomes}
    return [
        Regression(suite=outcome.suite, row=outcome.row, text=text)
        for outcome in later.outcomes
        if outcome.name in before
        for text in _worse(before[outcome.name], outcome)
    ]


def _worse(before: Outcome, after: Outcome) -> Iterator[str]:
    if before.verdict is Verdict.HOLDS and after.verdict is not Verdict.HOLDS:
        yield f"it held, and now it {_say(after.verdict)}"
    figures = {figure.name: figure for figure in before.figures}
    for figure in after.figures:
        former = figures.get(figure.name)
        if former is not None and _is_worse(former, figure):
            yield f"{figure.name} was {former.value:g} {former.unit}, now {figure.value:g}"


def _say(verdict: Verdict) -> str:
    return {Verdict.LEFT_OUT: "is left out"}.get(verdict, str(verdict))


def _is_worse(before: Figure, after: Figure) -> bool:
    if after.better is Better.HIGHER:
        return after.value < before.value * (1 - TOLERANCE)
    return after.value > before.value * (1 + TOLERANCE)

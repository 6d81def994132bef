"""The report as one page of HTML, which needs no network."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

from catenary.errors import ConfigError
from catenary.validate.report.charts import charts
from catenary.validate.report.comparison import Regression
from catenary.validate.results import Outcome, Report, Verdict


class Section(NamedTuple):
    """The rows of one suite, and how many of them hold."""

    name: str
    outcomes: list[Outcome]
    holding: int
    asked: int


def page(report: Report, regressions: Sequence[Regression] = ()) -> str:
    """
    Return the page of a report.

    Raises:
        ConfigError: If jinja2 or plotly is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - an extra
        from plotly.offline import get_plotlyjs  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "a report needs jinja2, plotly and junitparser: pip install 'catenary[validate]'"
        ) from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = files("catenary.validate.report").joinpath("report.html.jinja").read_text("utf-8")
    return environment.from_string(source).render(
        report=report,
        headline=_headline(report),
        sections=_sections(report),
        counts=_counts(report),
        regressions=list(regressions),
        regressed={f"{one.suite}: {one.row}" for one in regressions},
        charts=charts(report.outcomes),
        plotly=get_plotlyjs(),
        began=dt.datetime.fromtimestamp(report.started_at, dt.UTC),
        Verdict=Verdict,
    )


def _headline(report: Report) -> str:
    short, holding = len(report.of(Verdict.FALLS_SHORT)), len(report.of(Verdict.HOLDS))
    if short:
        return f"{short} row falls short" if short == 1 else f"{short} rows fall short"
    unasked = len(report.outcomes) - holding
    return "Every row holds" if not unasked else f"{holding} rows hold, {unasked} were not asked"


def _sections(report: Report) -> list[Section]:
    return [
        Section(
            name,
            outcomes := list(group),
            sum(outcome.verdict is Verdict.HOLDS for outcome in outcomes),
            sum(o.verdict in {Verdict.HOLDS, Verdict.FALLS_SHORT} for o in outcomes),
        )
        for name, group in groupby(report.outcomes, key=lambda outcome: outcome.suite)
    ]


def _counts(report: Report) -> dict[str, Any]:
    return {verdict.name.lower(): len(report.of(verdict)) for verdict in Verdict}

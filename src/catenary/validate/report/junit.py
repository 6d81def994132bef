"""The report for whoever reads JUnit: CI servers."""

from __future__ import annotations

from typing import Any

from catenary.errors import ConfigError
from catenary.validate.results import Outcome, Report, Verdict


def junit(report: Report) -> str:
    """
    Return a report as JUnit's XML: a suite for each suite, a case for each row.

    Raises:
        ConfigError: If junitparser is not installed.
    """
    try:
        from junitparser import JUnitXml, TestCase, TestSuite  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "a report needs junitparser, jinja2 and plotly: pip install 'catenary[validate]'"
        ) from error
    document = JUnitXml("catenary validate")
    for name in dict.fromkeys(outcome.suite for outcome in report.outcomes):
        suite = TestSuite(name)
        suite.add_property("seed", report.seed)
        for outcome in report.outcomes:
            if outcome.suite == name:
                case = TestCase(outcome.row, f"catenary.validate.{name}", outcome.seconds)
                case.system_out = f"asked: {outcome.asked}\nmeasured: {outcome.measured}"
                case.result = _results(outcome)
                suite.add_testcase(case)
        document.add_testsuite(suite)
    document.update_statistics()
    text: bytes = document.tostring()
    return text.decode()


def _results(outcome: Outcome) -> list[Any]:
    from junitparser.junitparser import Failure, Skipped  # noqa: PLC0415

    if outcome.verdict is Verdict.HOLDS:
        return []
    text = "; ".join([*outcome.faults, *outcome.slow])
    return [Failure(text) if outcome.verdict is Verdict.FALLS_SHORT else Skipped(text)]

"""The report for whoever reads JUnit: CI servers."""

from __future__ import annotations

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
        from junitparser.junitparser import Failure, Skipped  # noqa: PLC0415
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
                result = _result(outcome, Failure, Skipped)
                if result is not None:
                    case.result = [result]
                suite.add_testcase(case)
        document.add_testsuite(suite)
    document.update_statistics()
    return str(document.tostring().decode())


def _result(outcome: Outcome, failure: type, skipped: type) -> object | None:
    text = "; ".join([*outcome.faults, *outcome.slow])
    if outcome.verdict is Verdict.HOLDS:
        return None
    return (failure if outcome.verdict is Verdict.FALLS_SHORT else skipped)(text)

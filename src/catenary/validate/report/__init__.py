"""The report of a campaign: a page, JSON and JUnit, compared with an earlier one."""

from catenary.validate.report.comparison import Regression, compare
from catenary.validate.report.files import read_report, write_report

__all__ = ["Regression", "compare", "read_report", "write_report"]

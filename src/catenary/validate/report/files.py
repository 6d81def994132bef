"""The files of a report."""

from __future__ import annotations

from pathlib import Path

import msgspec

from catenary.errors import ConfigError
from catenary.validate.report.comparison import compare
from catenary.validate.report.junit import junit
from catenary.validate.report.page import page
from catenary.validate.results import Report

_decode = msgspec.json.Decoder(Report).decode


def write_report(report: Report, directory: Path, *, earlier: Report | None = None) -> Path:
    """
    Write ``report.html``, ``report.json`` and ``junit.xml``; return the first.

    Raises:
        ConfigError: If the directory cannot be written, or what makes pages is not installed.
    """
    regressions = [] if earlier is None else compare(earlier, report)
    shown = directory / "report.html"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "report.json").write_bytes(msgspec.json.encode(report))
        (directory / "junit.xml").write_text(junit(report), encoding="utf-8")
        shown.write_text(page(report, regressions), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {directory}: {error}") from error
    return shown


def read_report(path: Path) -> Report:
    """
    Read an earlier ``report.json``.

    Raises:
        ConfigError: If it is not there, or no report.
    """
    try:
        return _decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"there is no report at {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is no report of a campaign: {error}") from error

"""The command line as people use it: in this process, against a server in another one."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from catenary.cli import main

REPOSITORY = Path(__file__).parents[2]


class Said(NamedTuple):
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str


class CommandLine:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Said:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = self._capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return Said(code or 0, out, err)


@pytest.fixture
def logging_kept() -> Iterator[None]:
    """What a command sets up for its process is undone for the tests that follow."""
    names = (None, "catenary", "uvicorn", "uvicorn.error", "uvicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    former = [(each.level, each.propagate, each.handlers[:], each.filters[:]) for each in loggers]
    yield
    for each, (level, propagate, handlers, filters) in zip(loggers, former, strict=True):
        each.setLevel(level)
        each.propagate = propagate
        each.handlers[:] = handlers
        each.filters[:] = filters


@pytest.fixture
def catenary(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    logging_kept: None,
) -> CommandLine:
    """The command line, wide, in an empty directory, with nothing in the environment."""
    for name in list(os.environ):
        if name.startswith("CATENARY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    return CommandLine(capsys)


def started(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start a command that serves; return the process and its URL."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CATENARY_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "catenary.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://[^\s:]+:\d+", line)
    assert found, line
    return process, found[0]


def stopped(process: subprocess.Popen[str]) -> int:
    """End a process in order; return its exit status."""
    process.send_signal(signal.SIGTERM)
    with process:
        return process.wait(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a development server over a file."""
    log = tmp_path_factory.mktemp("server") / "events.db"
    process, url = started("serve", "--dev", "--port", "0", "--log", f"sqlite:///{log}")
    try:
        yield url
    finally:
        stopped(process)

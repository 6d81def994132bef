"""A SQLite log's file in other hands: other processes, other programs."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*words: object) -> subprocess.Popen[str]:
    """Start a process of ``emitting.py``."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.eventlog.emitting", *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def output(*words: object) -> str:
    """Return what a process of ``emitting.py`` says."""
    process = run(*words)
    said, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    return said


@contextmanager
def planted(path: Path) -> Iterator[sqlite3.Connection]:
    """Change the file behind the log's back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold SQLite's own lock, as another program may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")

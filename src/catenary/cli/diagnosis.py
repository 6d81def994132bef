"""What ``doctor`` looks at, and what it says to do."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import platform
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import NamedTuple

from catenary.errors import CatenaryError, ConfigError, LogUnavailable
from catenary.eventlog.opening import open_log
from catenary.eventlog.urls import without_secrets
from catenary.serving.server import listen, raise_open_files_limit
from catenary.settings import (
    Settings,
    check_durability,
    check_workers,
    required_durability,
    secured,
    verifier,
)

OPEN_FILES_WANTED = 4096
EARLIEST = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
"""A clock before this was never set."""
CLOCK_STEP_SECONDS = 0.05
FIXED_SQLITE = (3, 51, 3)
LIBRARIES = ("uvicorn", "websockets", "starlette", "msgspec", "uvloop")


class Grade(enum.Enum):
    """How a finding is to be taken."""

    GOOD = "good"
    NOTE = "note"
    WRONG = "wrong"


class Finding(NamedTuple):
    """One thing that was looked at."""

    grade: Grade
    what: str
    text: str


Check = Callable[[Settings], Awaitable[Finding]]


async def examined(settings: Settings) -> list[Finding]:
    """Look at everything, one after another."""
    return [await check(settings) for check in CHECKS]


async def check_credentials(settings: Settings) -> Finding:
    """Whether tokens can be verified."""
    try:
        verifier(secured(settings))
    except ConfigError as error:
        return Finding(Grade.WRONG, "credentials", str(error))
    if not settings.has_key:
        return Finding(Grade.NOTE, "credentials", "a random secret, for development only")
    if settings.api_key is None:
        text = "tokens can be verified; no CATENARY_API_KEY, so nothing can be published over HTTP"
        return Finding(Grade.NOTE, "credentials", text)
    return Finding(Grade.GOOD, "credentials", "tokens can be verified, and there is an API key")


async def check_log(settings: Settings) -> Finding:
    """Whether the log opens and commits, and what it survives."""
    began = time.perf_counter()
    try:
        log = open_log(settings.log)
        log.required = required_durability(settings)
        await log.start()
    except LogUnavailable as error:
        return Finding(Grade.WRONG, "event log", str(error))
    except (CatenaryError, OSError) as error:
        text = f"{without_secrets(settings.log)}: {error}. Check the address, the directory and its permissions"
        return Finding(Grade.WRONG, "event log", text)
    try:
        # Reading a new log's head makes its first term: one commit.
        await log.put("doctor", b"", ttl=1.0)
        check_durability(settings, log)
        check_workers(settings, log)
    except CatenaryError as error:
        return Finding(Grade.WRONG, "event log", str(error))
    finally:
        await log.stop()
    took = time.perf_counter() - began
    text = f"opened and committed in {took * 1000:.0f} ms; durability in force: {log.durability}"
    if log.is_shared:
        text = f"{text} ({log.survives})"
        grade = Grade.NOTE if log.durability == "memory" else Grade.GOOD
        return Finding(grade, "event log", text)
    if log.durability == "memory":
        return Finding(Grade.NOTE, "event log", f"{text}. Events end with the process")
    return Finding(Grade.GOOD, "event log", text)


async def check_port(settings: Settings) -> Finding:
    """Whether the port is free."""
    try:
        listen(settings.host, settings.port).close()
    except ConfigError as error:
        return Finding(Grade.WRONG, "port", str(error))
    return Finding(Grade.GOOD, "port", f"{settings.host}:{settings.port} is free")


async def check_clock(settings: Settings) -> Finding:  # noqa: ARG001 - a check
    """Whether the clock was set, and runs evenly."""
    now = dt.datetime.now(dt.UTC)
    if now < EARLIEST:
        text = f"it says {now:%Y-%m-%d}: set it, or every token seems to be of the future"
        return Finding(Grade.WRONG, "clock", text)
    wall, steady = time.time(), time.monotonic()
    await asyncio.sleep(0.2)
    drift = abs((time.time() - wall) - (time.monotonic() - steady))
    if drift > CLOCK_STEP_SECONDS:
        text = f"it jumped by {drift:.2f} s while it was looked at: check its synchronisation"
        return Finding(Grade.NOTE, "clock", text)
    return Finding(Grade.GOOD, "clock", f"{now:%Y-%m-%d %H:%M:%S} UTC, and steady")


async def check_open_files(settings: Settings) -> Finding:  # noqa: ARG001 - a check
    """Whether enough connections fit."""
    limit = raise_open_files_limit()
    if limit is None:
        return Finding(Grade.GOOD, "open files", "this system sets no limit")
    if limit < OPEN_FILES_WANTED:
        text = f"at most {limit}, one a connection: raise it (ulimit -Hn, or LimitNOFILE=)"
        return Finding(Grade.NOTE, "open files", text)
    return Finding(Grade.GOOD, "open files", f"up to {limit:,}, one a connection")


async def check_sqlite(settings: Settings) -> Finding:
    """Whether SQLite is one that is known to keep what it was given."""
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= FIXED_SQLITE or not settings.log.startswith("sqlite"):
        return Finding(Grade.GOOD, "SQLite", version)
    text = (
        f"{version}: before 3.51.3 two connections that write at once may corrupt a WAL. Catenary "
        "writes through one; let no other program write this file"
    )
    return Finding(Grade.NOTE, "SQLite", text)


async def check_versions(settings: Settings) -> Finding:  # noqa: ARG001 - a check
    """What is installed."""
    found = [f"Catenary {metadata.version('catenary')}", f"Python {platform.python_version()}"]
    missing = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing and sys.platform != "win32":
        text = f"{', '.join(found)}; without {', '.join(missing)}: pip install {' '.join(missing)}"
        return Finding(Grade.NOTE, "versions", text)
    return Finding(Grade.GOOD, "versions", ", ".join(found))


CHECKS: tuple[Check, ...] = (
    check_credentials,
    check_log,
    check_port,
    check_clock,
    check_open_files,
    check_sqlite,
    check_versions,
)

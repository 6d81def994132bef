"""The tables of a SQLite log, and how its file is opened."""

from __future__ import annotations

import sqlite3
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catenary.errors import ConfigError, LogUnavailable, RecordCorrupt
from catenary.eventlog.model import Durability

FORMAT = 1
_APPLICATION_ID = 0x43544E59

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE logs (
  log INTEGER PRIMARY KEY,
  log_id TEXT NOT NULL UNIQUE,
  epoch TEXT NOT NULL,
  former BLOB NOT NULL,
  head INTEGER NOT NULL,
  first INTEGER NOT NULL,
  events INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  seen_epoch TEXT,
  seen_seq INTEGER
);
CREATE TABLE batches (
  place INTEGER PRIMARY KEY,
  first_seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  producer INTEGER NOT NULL,
  number INTEGER NOT NULL,
  events INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE TABLE runs (
  log INTEGER NOT NULL,
  run_id TEXT NOT NULL,
  user_id TEXT,
  thread_id TEXT,
  agent_name TEXT,
  parent_run_id TEXT,
  holder TEXT NOT NULL,
  is_open INTEGER NOT NULL,
  is_reported INTEGER NOT NULL,
  compacted INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  lease REAL,
  cancel_requested_at INTEGER,
  cancel_reason TEXT,
  cancel_by TEXT,
  end_type TEXT,
  open_tools BLOB,
  kept_fold BLOB,
  UNIQUE (log, run_id)
);
CREATE INDEX open_runs ON runs (log) WHERE is_open;
CREATE INDEX unreported_runs ON runs (last_at) WHERE end_type IS NOT NULL AND NOT is_reported;
CREATE INDEX loose_runs ON runs (log) WHERE end_type IS NOT NULL AND compacted < last_seq;
CREATE INDEX runs_by_id ON runs (run_id);
CREATE INDEX runs_by_age ON runs (last_at) WHERE NOT is_open AND is_reported;
CREATE TABLE keys (
  log INTEGER NOT NULL,
  key TEXT NOT NULL,
  digest BLOB NOT NULL,
  epoch TEXT NOT NULL,
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (log, key)
) WITHOUT ROWID;
CREATE INDEX keys_by_age ON keys (at);
CREATE TABLE commands (
  number INTEGER PRIMARY KEY,
  log INTEGER NOT NULL,
  command_id TEXT NOT NULL,
  digest BLOB NOT NULL,
  at REAL NOT NULL,
  holder TEXT NOT NULL,
  reply BLOB,
  UNIQUE (log, command_id)
);
CREATE INDEX commands_by_log ON commands (log, number);
CREATE INDEX commands_by_age ON commands (at);
CREATE TABLE expiring (
  key TEXT PRIMARY KEY,
  value BLOB NOT NULL,
  expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX expiring_by_time ON expiring (expires);
"""

_TRANSIENT = (sqlite3.OperationalError, sqlite3.InternalError)


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into this package's, with the path and what to do."""
    try:
        yield
    except _TRANSIENT as error:
        raise LogUnavailable(f"{path}: {error}. {_advice(error)}") from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError):
            raise
        raise RecordCorrupt(
            f"{path}: {error}. Stop the server, keep a copy of the file, restore it from a backup"
        ) from error


def _advice(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return {
        sqlite3.SQLITE_FULL: "Make room on that disk",
        sqlite3.SQLITE_IOERR: "Check that disk: its room, its health, its mount",
        sqlite3.SQLITE_READONLY: "Let this user write the file and its directory",
        sqlite3.SQLITE_CANTOPEN: "Let this user create and write files in that directory",
        sqlite3.SQLITE_BUSY: "Let the other program that has it open finish its transaction",
    }.get(code, "It will be tried again")


def open_writer(path: Path, durability: Durability) -> sqlite3.Connection:
    """
    Open the file for its one writer; a new file gets its tables.

    Raises:
        ConfigError: It is something else, of a newer format, or cannot give the durability.
        LogError: It cannot be opened now, or not be read.
    """
    with errors_of(path):
        connection = sqlite3.connect(
            path, timeout=1.0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            _prepare(connection, path, durability)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, durability: Durability) -> None:
    is_new = _check_format(connection, path)
    journal = _pragma(connection, "journal_mode = WAL")
    wanted = 2 if durability is Durability.POWER else 1
    connection.execute(f"PRAGMA synchronous = {wanted}")
    if str(journal).lower() != "wal" or int(_pragma(connection, "synchronous")) < wanted:
        raise ConfigError(
            f"{path} cannot give durability={durability}: SQLite answers journal_mode={journal}. "
            "A WAL needs a local disk and a file that can be written"
        )
    # On macOS fsync alone leaves the data in the drive; elsewhere this changes nothing.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    connection.execute("PRAGMA cache_size = -16384")
    if is_new:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {_APPLICATION_ID}; "
            f"PRAGMA user_version = {FORMAT}; COMMIT"
        )


def _check_format(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is new; raises if it is not ours to open."""
    application = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables and not application:
        return True
    if application != _APPLICATION_ID:
        raise ConfigError(f"{path} is a SQLite file of another program; name another file")
    if int(version) > FORMAT:
        raise ConfigError(
            f"{path} has format {version}, and this version of catenary reads up to {FORMAT}: "
            "upgrade catenary, or name another file"
        )
    return False


def _pragma(connection: sqlite3.Connection, words: str) -> int | str:
    value: int | str = connection.execute(f"PRAGMA {words}").fetchone()[0]
    return value


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the file for one reading thread, which cannot change it."""
    with errors_of(path):
        quoted = urllib.parse.quote(str(path))
        connection = sqlite3.connect(
            f"file:{quoted}?mode=ro",
            uri=True,
            timeout=5.0,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA query_only = ON")
        return connection

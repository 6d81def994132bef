"""Claimed messages, and values that expire, in SQLite."""

from __future__ import annotations

import sqlite3

from catenary.eventlog.commands import WINDOW_COMMANDS, WINDOW_SECONDS
from catenary.eventlog.model import Claim, ClaimState


def claim(
    connection: sqlite3.Connection,
    log: int,
    command_id: str,
    digest: bytes,
    *,
    holder: str,
    now: float,
) -> Claim:
    """Claim an id, or say what became of it."""
    row = connection.execute(
        "SELECT digest, holder, reply FROM commands WHERE log = ? AND command_id = ? AND at > ?",
        (log, command_id, now - WINDOW_SECONDS),
    ).fetchone()
    if row is None:
        _insert(connection, log, command_id, digest, holder=holder, now=now)
        return Claim(ClaimState.NEW)
    known_digest, known_holder, reply = row
    if known_digest != digest:
        return Claim(ClaimState.CONFLICT)
    if reply is not None:
        return Claim(ClaimState.DONE, reply)
    return Claim(ClaimState.HELD if known_holder == holder else ClaimState.INTERRUPTED)


def _insert(
    connection: sqlite3.Connection,
    log: int,
    command_id: str,
    digest: bytes,
    *,
    holder: str,
    now: float,
) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO commands (log, command_id, digest, at, holder) "
        "VALUES (?, ?, ?, ?, ?)",
        (log, command_id, digest, now, holder),
    )
    connection.execute(
        "DELETE FROM commands WHERE log = ? AND number <= "
        "(SELECT number FROM commands WHERE log = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
        (log, log, WINDOW_COMMANDS),
    )


def reclaim(connection: sqlite3.Connection, log: int, command_id: str, *, holder: str) -> None:
    """Let this process hold an interrupted id."""
    connection.execute(
        "UPDATE commands SET holder = ? WHERE log = ? AND command_id = ? AND reply IS NULL",
        (holder, log, command_id),
    )


def finish(connection: sqlite3.Connection, log: int, command_id: str, reply: bytes) -> None:
    """Keep the reply of a claimed id."""
    connection.execute(
        "UPDATE commands SET reply = ? WHERE log = ? AND command_id = ?", (reply, log, command_id)
    )


def put(connection: sqlite3.Connection, key: str, value: bytes, expires: float) -> None:
    """Keep a value until a time."""
    connection.execute(
        "INSERT OR REPLACE INTO expiring (key, value, expires) VALUES (?, ?, ?)",
        (key, value, expires),
    )


def get(connection: sqlite3.Connection, key: str, now: float) -> bytes | None:
    """Return a value that has not expired."""
    row = connection.execute(
        "SELECT value FROM expiring WHERE key = ? AND expires > ?", (key, now)
    ).fetchone()
    return row[0] if row is not None else None


def take(connection: sqlite3.Connection, key: str, now: float) -> bytes | None:
    """Return a value that has not expired, and remove it."""
    value = get(connection, key, now)
    connection.execute("DELETE FROM expiring WHERE key = ?", (key,))
    return value


def expire(connection: sqlite3.Connection, now: float) -> None:
    """Drop what has expired."""
    connection.execute("DELETE FROM expiring WHERE expires <= ?", (now,))
    connection.execute("DELETE FROM commands WHERE at <= ?", (now - WINDOW_SECONDS,))

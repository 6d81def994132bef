"""What a process does with a SQLite log that others left: terms, and their open runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from catenary.envelope import Envelope
from catenary.eventlog.model import Durability
from catenary.eventlog.sqlite.places import place_of, unpack
from catenary.eventlog.sqlite.runs import open_tools
from catenary.grammar import OpenTool

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def machine_boot_id() -> str | None:
    """Return what names this run of the machine, where the system tells."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


class Opening(NamedTuple):
    """What the file says of its former process, and this one's number."""

    producer: int
    needs_new_terms: bool


def note_opening(connection: sqlite3.Connection, durability: Durability) -> Opening:
    """
    Record that this process has the file, within a transaction.

    New terms are needed where the former process left without closing, its
    commits did not survive a loss of power, and the machine was, or may have
    been, restarted since.
    """
    former = dict(connection.execute("SELECT name, value FROM meta"))
    producer = int(former.get("openings", 0)) + 1
    boot_id = machine_boot_id()
    was_restarted = boot_id is None or former.get("boot_id") != boot_id
    needs_new_terms = (
        former.get("is_open") == 1
        and former.get("durability") != Durability.POWER
        and was_restarted
    )
    now = {"openings": producer, "is_open": 1, "boot_id": boot_id, "durability": str(durability)}
    connection.executemany("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", now.items())
    return Opening(producer, needs_new_terms)


def note_closing(connection: sqlite3.Connection) -> None:
    """Record that all was closed in order."""
    connection.execute("UPDATE meta SET value = 0 WHERE name = 'is_open'")


class LeftRun(NamedTuple):
    """An open run of a process that is gone."""

    log_id: str
    log: int
    envelope: Envelope
    holder: str
    first_seq: int
    started_at: int
    lease: float | None
    tools: dict[str, OpenTool]
    cancel_requested_at: int | None
    cancel_reason: str | None
    cancel_by: str | None


def left_runs(connection: sqlite3.Connection, holder: str) -> Iterator[LeftRun]:
    """Return the open runs of all holders but one."""
    rows = connection.execute(
        "SELECT log_id, log, user_id, thread_id, run_id, agent_name, parent_run_id, holder, "
        "first_seq, started_at, lease, open_tools, cancel_requested_at, cancel_reason, cancel_by "
        "FROM runs JOIN logs USING (log) WHERE is_open AND holder <> ?",
        (holder,),
    ).fetchall()
    for log_id, log, user_id, thread_id, run_id, agent_name, parent, of, *more in rows:
        envelope = Envelope(
            user_id=user_id or log_id,
            thread_id=thread_id,
            run_id=run_id,
            agent_name=agent_name,
            parent_run_id=parent,
        )
        first_seq, started_at, lease, tools, *cancel = more
        yield LeftRun(
            log_id, log, envelope, of, first_seq, started_at, lease, open_tools(tools), *cancel
        )


def last_heard(connection: sqlite3.Connection, run: LeftRun) -> tuple[int, int]:
    """Return the number and the time of a run's last event; 0 and its start if none is kept."""
    rows = connection.execute(
        "SELECT place, body FROM batches WHERE place >= ? AND place < ? ORDER BY place DESC",
        (place_of(run.log, run.first_seq), place_of(run.log + 1, 0)),
    )
    with closing(rows):
        for place, body in rows:
            for record in reversed(unpack(place, body)):
                if record.run_id == run.envelope.run_id:
                    return record.seq, record.at
    return run.first_seq, run.started_at

"""What is particular to the log in a SQLite file: what its file is, and a disk that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from catenary.errors import ConfigError, LogFull, LogUnavailable, RecordCorrupt
from catenary.eventlog.model import Durability
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.position import Position
from tests.eventlog.files import locked, output, planted
from tests.eventlog.support import (
    USER,
    all_records,
    append,
    completed,
    delta,
    event,
    numbers,
    said,
    started,
    tool_ended,
    tool_started,
)

# The file


async def test_a_newer_format_is_refused(path: Path) -> None:
    """A file of a later version is left alone, and the error says what to do."""
    log = SqliteLog(path)
    await append(log, event(1))
    await log.stop()
    with planted(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match=r"format 99.*upgrade"):
        await SqliteLog(path).start()


async def test_a_file_of_another_program_is_refused(path: Path) -> None:
    """Neither another program's database nor anything else is overwritten."""
    with planted(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ConfigError, match="another program"):
        await SqliteLog(path).start()
    await asyncio.to_thread(path.write_bytes, b"something else entirely, and long" * 100)
    with pytest.raises(RecordCorrupt, match="not a database"):
        await SqliteLog(path).start()


async def test_a_corrupt_row_is_named(path: Path) -> None:
    """A row that cannot be read raises with its place, and the others can be read."""
    log = SqliteLog(path)
    await append(log, event(1))
    await append(log, event(2))
    await log.stop()
    with planted(path) as connection:
        connection.execute("UPDATE batches SET body = x'00' WHERE place = (1 << 40) + 1")
    with pytest.raises(RecordCorrupt, match=r"row 1099511627777 of the table 'batches'"):
        await all_records(log)
    epoch = (await log.head(USER)).epoch
    assert numbers((await log.read(USER, Position(epoch, 1))).records) == [2]
    await log.stop()


@pytest.mark.parametrize("thread", ["t1", None])
async def test_erased_text_is_gone_from_the_files(path: Path, thread: str | None) -> None:
    """After erasing neither the file nor its write-ahead log holds the text."""
    log = SqliteLog(path)
    secrets = [f"secret{n:04}of-the-user" for n in range(300)]
    await append(log, started("r1"))
    for secret in secrets:
        log.append(log.stream(USER), event(secret))
        await append(log, delta(f"{secret} "))
    await append(log, completed("r1"))
    await log.sweep()
    await append(log, event("of another", thread="t2"))
    files = [path, path.with_name("events.db-wal")]
    assert any(b"of-the-user" in file.read_bytes() for file in files)
    assert await log.erase(USER, thread) > 0
    assert not any(b"of-the-user" in file.read_bytes() for file in files)
    await log.stop()


async def test_the_write_ahead_log_stays_small(path: Path) -> None:
    """However much is appended, the write-ahead log is written back in time."""
    log = SqliteLog(path, durability=Durability.PROCESS)
    wal = path.with_name("events.db-wal")
    largest = 0
    for _ in range(40):
        await append(log, *(event(n, size=1000) for n in range(500)))
        largest = max(largest, wal.stat().st_size)
    assert log.path.stat().st_size > 10_000_000
    assert largest < 12_000_000
    await log.stop()


# What does not commit


async def test_a_full_intake_refuses_but_keeps_room_for_ends(path: Path) -> None:
    """While nothing commits, verbs raise ``LogFull`` with the cause; runs may still end."""
    log = SqliteLog(path, log_intake_bytes=50_000, log_reserve_bytes=10_000)
    stream = log.stream(USER)
    await append(log, started(), tool_started("c1"))
    with locked(path):
        given = [log.append(stream, event("first"))]
        async with asyncio.timeout(5):
            while log.problem() is None:
                await asyncio.sleep(0.02)
        assert "locked" in str(log.problem())
        with pytest.raises(LogFull) as full:
            while True:
                given.append(log.append(stream, event(len(given), size=1000)))
        with pytest.raises(LogFull):
            while True:
                given.append(log.append(stream, event()))
        assert full.value.cause is not None
        assert "locked" in full.value.cause
        assert full.value.limit_bytes == 40_000
        assert log.statistics()["intake_bytes"] <= 40_000
        given += log.append_all(stream, [tool_ended("c1"), completed()])
        with pytest.raises(LogUnavailable):
            await log.put("ticket", b"v", 1.0)
        assert len(await all_records(log)) == 2, "reading goes on"
        assert not any(receipt.is_settled for receipt in given)
    async with asyncio.timeout(5):
        positions = [await receipt for receipt in given]
    assert [position.seq for position in positions] == list(range(3, 3 + len(given)))
    assert log.problem() is None
    assert log.statistics()["intake_bytes"] == 0
    await log.stop()


async def test_all_logs_together_are_bounded(path: Path) -> None:
    """The intake has one bound for all users, besides each one's own."""
    log = SqliteLog(path, intake_bytes=50_000, reserve_bytes=10_000)
    await append(log, event(1))
    with locked(path):
        given = [log.append(log.stream("user_0"), event(0))]
        with pytest.raises(LogFull, match="all logs"):
            while True:
                user = f"user_{len(given)}"
                given.append(log.append(log.stream(user), event(user, size=1000)))
        assert len(given) > 20
    async with asyncio.timeout(5):
        assert {(await receipt).seq for receipt in given} == {1}
    await log.stop()


async def test_waiting_deltas_become_one_record(path: Path) -> None:
    """Deltas that wait for one commit are one event with one position, under 64 KiB."""
    log = SqliteLog(path)
    stream = log.stream(USER)
    await append(log, started())
    with locked(path):
        first = log.append(stream, event("first"))
        words = [f"{n:03}" + "x" * 997 for n in range(100)]
        given = [log.append(stream, delta(word)) for word in words]
        assert len({id(receipt) for receipt in given}) == 2
    await first
    assert {(await receipt).seq for receipt in given} == {3, 4}
    records = await all_records(log)
    assert said(records) == "".join(words)
    assert max(len(record.body) for record in records) < 64 * 1024
    await log.stop()


def test_a_full_disk_refuses_and_recovers(path: Path) -> None:
    """When the file cannot grow: errors at the call, reading goes on, then all is committed."""
    lines = output("fill", path).splitlines()
    assert [line.split()[0] for line in lines] == ["refused", "problem", "read", "recovered"]
    assert "LogFull" in lines[0]
    assert str(path) in lines[0]
    assert "Check that disk" in lines[1] or "Make room" in lines[1]
    assert lines[2] == "read 11"
    _, count, last, problem = lines[3].split()
    assert count == last
    assert problem == "None"

    async def check() -> None:
        log = SqliteLog(path)
        assert numbers(await all_records(log)) == list(range(int(count)))
        await log.stop()

    asyncio.run(check())


def test_a_file_that_cannot_be_written_says_what_to_do(path: Path) -> None:
    """Opening where nothing can be written names the file; it opens once it can be."""
    refused, opened = output("unwritable", path).splitlines()
    assert refused.startswith("refused LogUnavailable")
    assert str(path) in refused
    assert opened == "opened 1"


async def test_stopping_waits_for_the_commit(path: Path) -> None:
    """A log that commits again while it is being stopped loses nothing."""
    log = SqliteLog(path)
    await append(log, event(1))
    with locked(path):
        receipt = log.append(log.stream(USER), event(2))
        stopping = asyncio.create_task(log.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
    await stopping
    assert (await receipt).seq == 2


async def test_content_that_cannot_be_stored_fails_alone(path: Path) -> None:
    """An id that has no UTF-8 fails its own receipts; others in the same commit go on."""
    log = SqliteLog(path)
    await append(log, event(0))
    with locked(path):
        good = log.append(log.stream(USER), event(1))
        bad = log.append(log.stream("user_2"), event(1, thread=None, run=None))
        worse = event(1)
        worse.thread_id = "\ud800"
        worst = log.append(log.stream("user_3"), worse)
    assert (await good).seq == 2
    assert (await bad).seq == 1
    with pytest.raises(UnicodeEncodeError):
        await worst
    await log.stop()

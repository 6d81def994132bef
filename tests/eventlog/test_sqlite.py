"""What is particular to the log in a SQLite file: crashes, its one holder, reopening, terms."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from catenary import WebSocketBridgeFactory
from catenary.errors import (
    LogUnavailable,
    RunClosed,
    UsageError,
)
from catenary.eventlog.model import ClaimState, Durability
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.eventlog.sqlite.state import find_log
from catenary.position import Position
from catenary.wires.native import event_of
from tests.eventlog.files import locked, output, planted, run
from tests.eventlog.support import (
    USER,
    Clock,
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
from tests.eventlog.virtual import VirtualLog, in_virtual_time

# Crashes


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_what_was_acknowledged_survives_kill_9(path: Path, durability: str) -> None:
    """Killed again and again, every acknowledged event is there, dense, in one term."""
    seed = 4711
    print(f"seed {seed}")
    order = random.Random(seed)
    acknowledged: dict[str, int] = {}
    for life in range(4):
        process = run("emit", path, durability, life * 100_000)
        assert process.stdout is not None
        for _ in range(order.randrange(20, 400)):
            user, last = process.stdout.readline().split()
            acknowledged[user] = int(last)
        process.kill()
        # Not by communicate(), which forgets what was read ahead.
        with process:
            for line in process.stdout:
                if line.endswith("\n"):
                    user, last = line.split()
                    acknowledged[user] = int(last)
    log = SqliteLog(path, durability=Durability(durability))
    for user, seq in acknowledged.items():
        records = await all_records(log, user)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert len(records) >= seq
        assert len({record.epoch for record in records}) == 1
        found = [int(str(n)) for n in numbers(records)]
        assert found == sorted(set(found))
    await log.stop()


async def test_a_killed_process_leaves_its_runs_to_the_next(path: Path) -> None:
    """The next process closes what a killed one left open, and the file is free at once."""
    process = run("hold", path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.communicate()
    log = SqliteLog(path)
    await log.start()
    (record,) = (await all_records(log))[1:]
    assert event_of(record).data["code"] == "producer_lost"
    await log.stop()


async def test_what_was_accepted_is_committed_at_the_process_end(path: Path) -> None:
    """A process that ends without stopping its log commits what the intake holds."""
    assert output("leave", path) == ""
    log = SqliteLog(path)
    assert numbers(await all_records(log)) == list(range(2000))
    await log.stop()


# One process


async def test_a_second_process_is_refused_and_told_who_holds_the_file(path: Path) -> None:
    """While another process has the file, opening says which one; then it opens."""
    process = run("hold", path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    log = SqliteLog(path, patience=0.1)
    with pytest.raises(LogUnavailable, match=rf"process {process.pid} .*since 20.*events\.db"):
        await log.start()
    process.communicate("\n")
    await log.start()
    await log.stop()


async def test_opening_waits_for_a_process_that_is_going(path: Path) -> None:
    """Patience lets a successor start while its predecessor still closes."""
    first, second = SqliteLog(path), SqliteLog(path, patience=5.0)
    await first.start()
    opening = asyncio.create_task(second.start())
    await asyncio.sleep(0.1)
    assert not opening.done()
    await first.stop()
    await opening
    await second.stop()


async def test_the_same_file_twice_in_one_process_is_refused(path: Path) -> None:
    """Two logs of one file in one process are one too many."""
    first, second = SqliteLog(path), SqliteLog(path, patience=0.0)
    await first.start()
    with pytest.raises(LogUnavailable, match="this process"):
        await second.start()
    await first.stop()


def test_no_loop_is_needed(path: Path) -> None:
    """Without any loop a log is made, takes events and gives their positions."""
    log = SqliteLog(path)
    receipt = log.append(log.stream(USER), event(1))
    assert receipt.result(5).seq == 1
    asyncio.run(log.stop())


# Reopening


async def test_reopening_goes_on_with_epoch_and_numbers(path: Path) -> None:
    """A log that was closed in order goes on exactly, with all that it knew."""
    first = SqliteLog(path)
    (position,) = await append(first, event(1, key="k"))
    await first.note_seen(USER, position)
    await append(first, started("ended"), completed("ended"))
    await first.claim_command(USER, "done", b"x")
    await first.finish_command(USER, "done", b"reply")
    await first.claim_command(USER, "cut", b"x")
    await first.put("ticket", b"v", 60.0)
    await first.stop()
    second = SqliteLog(path)
    assert await second.head(USER) == Position(position.epoch, 3)
    assert await second.seen(USER) == position
    assert await second.take("ticket") == b"v"
    assert await second.claim_command(USER, "done", b"x") == (ClaimState.DONE, b"reply")
    assert (await second.claim_command(USER, "cut", b"x")).state is ClaimState.INTERRUPTED
    await second.reclaim_command(USER, "cut")
    assert (await second.claim_command(USER, "cut", b"x")).state is ClaimState.HELD
    assert [info.run_id for info in await second.unreported_runs(10)] == ["ended"]
    assert await append(second, event(1, key="k")) == [position]
    stream = second.stream(USER)
    stream.keys.clear()
    with pytest.raises(UsageError, match="idempotency key"):
        await second.append(stream, event(2, key="k"))
    await second.stop()


async def test_a_run_id_of_a_former_process_is_refused(path: Path) -> None:
    """A run that was before takes no second start: through the receipt, then at each call."""
    first = SqliteLog(path)
    await append(first, started("r1"), completed("r1"))
    await first.stop()
    second = SqliteLog(path)
    stream = second.stream(USER)
    await second.head(USER)
    with locked(path):
        given = [second.append(stream, entry) for entry in (started("r1"), delta("a"))]
        async with asyncio.timeout(5):
            while not stream.in_flight:
                await asyncio.sleep(0)
        given += [second.append(stream, entry) for entry in (delta("b"), event(1))]
    for receipt in given[:3]:
        with pytest.raises(RunClosed, match="has been before"):
            await receipt
    assert (await given[3]).seq == 3
    with pytest.raises(RunClosed, match="has been before"):
        second.append(stream, delta("b"))
    await second.stop()


async def test_reopening_closes_runs_with_their_tools(path: Path) -> None:
    """Open runs of a predecessor end with ``producer_lost``; open tools are closed first."""
    first = SqliteLog(path)
    await append(first, started(), tool_started("c1"), tool_started("c2"), tool_ended("c1"))
    await append(first, delta("so far"))
    holder = first.holder
    await first.stop()
    second = SqliteLog(path)
    ends: list[int] = []
    second.run_ended = lambda: ends.append(1)
    await second.start()
    closed = [event_of(record) for record in (await all_records(second))[5:]]
    assert [found.type for found in closed] == ["tool_completed", "agent_error"]
    assert closed[0].data["tool_call_id"] == "c2"
    assert closed[1].data["code"] == "producer_lost"
    assert closed[1].data["holder"]["holder"] == holder
    assert (closed[1].user_id, closed[1].agent_name) == (USER, "writer")
    assert await second.open_runs() == []
    assert [info.end_type for info in await second.unreported_runs(10)] == ["agent_error"]
    assert ends == [1]
    await second.stop()


async def test_a_leased_run_goes_on_in_the_next_process(path: Path) -> None:
    """A run that lives by its events survives the process, with its tools and its lease."""
    clock = Clock()
    first = SqliteLog(path, clock=clock)
    await append(first, started(lease=60.0), tool_started("c1"))
    await first.stop()
    second = SqliteLog(path, clock=clock)
    await second.start()
    assert second.stream(USER).runs["r1"].is_open
    await append(second, tool_ended("c1"), delta("more"))
    clock.now += 61
    await second.sweep()
    await append(second, event("after"))
    types = [record.type for record in await all_records(second)]
    assert types[2:] == ["tool_completed", "agent_delta", "agent_error", "app.note"]
    await second.stop()


async def test_its_own_runs_stay_open_over_stop_and_start(path: Path) -> None:
    """A log that is stopped and started by the same process keeps its runs."""
    log = SqliteLog(path)
    await append(log, started())
    await log.stop()
    await append(log, delta("a"), completed())
    assert said(await all_records(log)) == "a"
    await log.stop()


async def test_what_was_read_late_does_not_turn_a_stream_back(path: Path) -> None:
    """A stream that the writer has loaded ignores what a reader found before it."""
    log = SqliteLog(path)
    await append(log, event(1))
    stale = await log._read(find_log, USER)
    assert stale is not None
    await append(log, event(2))
    stream = log.stream(USER)
    stream.show(stale)
    assert stream.head == 2
    await log.stop()


# Terms


@pytest.mark.parametrize(
    ("durability", "boot_id", "is_open", "is_new"),
    [
        ("process", "another boot", 1, True),
        ("process", None, 1, True),
        ("process", "another boot", 0, False),
        ("power", "another boot", 1, False),
    ],
)
async def test_a_crash_of_the_machine_begins_a_term_where_it_may_lose(
    path: Path, durability: str, boot_id: str | None, is_open: int, is_new: bool
) -> None:
    """A new term begins if commits may be lost, the log was open and the machine restarted."""
    first = SqliteLog(path, durability=Durability(durability))
    (position,) = await append(first, event(1))
    await first.stop()
    with planted(path) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'boot_id'", (boot_id,))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'is_open'", (is_open,))
    second = SqliteLog(path, durability=Durability(durability))
    head = await second.head(USER)
    assert (head.epoch != position.epoch) is is_new
    assert head.seq == 1
    assert await append(second, event(2)) == [Position(head.epoch, 2)]
    await second.stop()


async def test_a_crash_of_the_process_keeps_the_term(path: Path) -> None:
    """An unclean end on the same boot lost nothing, so the term goes on."""
    first = SqliteLog(path, durability=Durability.PROCESS)
    (position,) = await append(first, event(1))
    await first.stop()
    with planted(path) as connection:
        connection.execute("UPDATE meta SET value = 1 WHERE name = 'is_open'")
    second = SqliteLog(path, durability=Durability.PROCESS)
    assert (await second.head(USER)).epoch == position.epoch
    await second.stop()


async def test_waits_for_the_commit_are_measured(tmp_path: Path) -> None:
    """Each group that is committed counts one wait, no longer than the call that waited for it."""
    async with WebSocketBridgeFactory(log=f"sqlite:///{tmp_path}/events.db") as factory:
        emitter = await factory.create_user_emitter("user_123")
        began = time.perf_counter()
        await emitter.custom("app.note")
        waits = factory.log.append_seconds
    assert sum(waits.counts) >= 1
    assert 0 < waits.total < time.perf_counter() - began


async def test_a_retried_job_follows_its_run_of_a_former_process(path: Path) -> None:
    """takeover=True finds the run that a restart closed, and continues it by a new one."""
    async with WebSocketBridgeFactory(log=f"sqlite:///{path}") as factory:
        emitter = await factory.create_user_emitter("user_123")
        async with emitter.run(run_id="job_1", takeover=True) as run:
            assert run.run_id == "job_1"
    async with WebSocketBridgeFactory(log=f"sqlite:///{path}") as factory:
        emitter = await factory.create_user_emitter("user_123")
        async with emitter.run(run_id="job_1", takeover=True) as run:
            assert run.run_id != "job_1"
        started = [
            event.data
            async for event in factory.events("user_123")
            if event.type == "agent_started"
        ]
    assert started == [{}, {"continues_run_id": "job_1"}]


@pytest.mark.parametrize("thread", ["t1", None], ids=["thread", "all"])
def test_a_run_that_begins_while_its_thread_is_erased_goes_on(
    path: Path, thread: str | None
) -> None:
    """Its start was accepted before the erasure was made, and is committed after it."""

    async def work(log: VirtualLog) -> None:
        await append(log, started("r1"))
        erasing = asyncio.ensure_future(log.erase(USER, thread))
        await asyncio.sleep(0.5)  # the erasure is committed, and nobody knows yet
        starting = log.append(log.stream(USER), started("r2"))
        await erasing
        await starting
        with pytest.raises(RunClosed):
            await append(log, completed("r1"))
        await append(log, completed("r2"))
        [run] = [run for run in await log.runs(USER) if run.run_id == "r2"]
        assert run.end_type == "agent_completed"

    in_virtual_time(path, work)

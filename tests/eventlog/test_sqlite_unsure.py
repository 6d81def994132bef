"""A commit that was made and not answered, as when the disk's answer is lost; in virtual time."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from catenary.errors import LogUnavailable
from catenary.eventlog.model import CancelOutcome, ClaimState, Retention
from catenary.eventlog.sqlite import SqliteLog
from catenary.validate.simulation.loop import SimulatedLoop
from tests.eventlog.support import USER, Bell, all_records, append, event, numbers, started
from tests.simulation.machine import SimulatedMachine


class UnansweredLog(SqliteLog):
    """A log whose transactions take a second; the next ``unanswered`` are made, but fail."""

    unanswered = 0

    def __init__(self, path: Path, loop: SimulatedLoop, retention: Retention | None) -> None:
        self.machine = SimulatedMachine(loop, uniform=random.Random(1).uniform)
        super().__init__(path, retention=retention)

    def _end_transaction(self) -> None:
        super()._end_transaction()
        self.machine.sleep(1.0)
        if self.unanswered:
            self.unanswered -= 1
            raise sqlite3.OperationalError("disk I/O error")


def run(
    path: Path,
    work: Callable[[UnansweredLog], Awaitable[None]],
    retention: Retention | None = None,
) -> None:
    """Do something with an open log that has one event."""
    loop = SimulatedLoop()
    log = UnansweredLog(path, loop, retention)

    async def main() -> None:
        await log.start()
        await append(log, event(1))
        await work(log)
        await log.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


def test_a_retry_returns_the_old_positions(path: Path) -> None:
    """What was committed, though nobody learned of it, is not appended twice."""

    async def work(log: UnansweredLog) -> None:
        log.unanswered = 1
        assert [place.seq for place in await append(log, event(2), event(3))] == [2, 3]
        assert log.unanswered == 0
        assert numbers(await all_records(log)) == [1, 2, 3]

    run(path, work)


def test_what_waits_for_the_retry_is_done(path: Path) -> None:
    """The retry finds its batch in the file, and does what came since all the same."""

    async def work(log: UnansweredLog) -> None:
        await append(log, started("r1"))
        log.unanswered = 1
        receipt = log.append(log.stream(USER), event(2))
        await asyncio.sleep(0.5)
        async with asyncio.timeout(20):
            assert await log.request_cancel(USER, "r1") is CancelOutcome.STORED
            assert (await log.claim_command(USER, "c1", b"digest")).state is ClaimState.NEW
        assert (await receipt).seq == 3

    run(path, work)


def test_a_term_that_began_unanswered_is_known(path: Path) -> None:
    """Whoever began it is told that its outcome is not known; what follows stands in the new term."""

    async def work(log: UnansweredLog) -> None:
        bell = Bell()
        stream = await log.watch(USER, bell)
        before = stream.position
        log.unanswered = 1
        with pytest.raises(LogUnavailable):
            await log.new_term(USER)
        [place] = await append(log, event(2))
        assert place.epoch != before.epoch
        assert stream.position == place == await log.head(USER)
        page = await log.read(USER, before)
        assert page.gap is not None
        assert (page.gap.reason, page.gap.resumes_at) == ("epoch", place)
        assert numbers(page.records) == [2]

    run(path, work)


def test_an_erasure_that_was_made_unanswered_is_known(path: Path) -> None:
    """The event that it leaves has its number, in the file as for those who read here."""

    async def work(log: UnansweredLog) -> None:
        stream = await log.watch(USER, Bell())
        log.unanswered = 1
        with pytest.raises(LogUnavailable):
            await log.erase(USER)
        assert [place.seq for place in await append(log, event(2))] == [3]
        assert stream.tail is not None
        assert stream.tail.end == 4
        assert [record.type for record in await all_records(log)] == ["erased", "app.note"]

    run(path, work)


def test_a_batch_beside_an_erasure_is_not_appended_twice(path: Path) -> None:
    """Both were in one transaction that was not answered."""

    async def work(log: UnansweredLog) -> None:
        await append(log, event(1), log_id="user_2")
        busy = log.append(log.stream("user_3"), event(1))
        await asyncio.sleep(0.5)
        receipt = log.append(log.stream(USER), event(2))
        erasing = asyncio.ensure_future(log.erase("user_2"))
        await busy
        log.unanswered = 1
        await asyncio.wait([erasing])
        assert (await receipt).seq == 2
        assert log.unanswered == 0
        assert numbers(await all_records(log)) == [1, 2]
        assert [record.seq for record in await all_records(log, "user_2")] == [2]

    run(path, work)


def test_a_trim_that_was_made_unanswered_is_known(path: Path) -> None:
    """The log goes on with what the file holds, and tells its readers of the loss."""

    async def work(log: UnansweredLog) -> None:
        receipts = [log.append(log.stream(USER), event(n)) for n in range(2, 40)]
        begin = await log.head(USER)
        await receipts[-1]
        # What follows is the trim that so many events ask for.
        log.unanswered = 1
        await asyncio.sleep(3)
        assert log.unanswered == 0
        await append(log, event(40))
        page = await log.read(USER, begin)
        assert page.gap is not None
        assert (
            page.records[0].first_seq
            == page.gap.resumes_at.seq
            == log.stream(USER).state.terms.first
        )

    run(path, work, retention=Retention(events=8))

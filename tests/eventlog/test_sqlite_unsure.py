"""A commit that was made and not answered, as when the disk's answer is lost; in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from catenary.errors import LogUnavailable
from catenary.eventlog.model import CancelOutcome, ClaimState, Retention
from tests.eventlog.support import USER, Bell, all_records, append, event, numbers, started
from tests.eventlog.virtual import VirtualLog, in_virtual_time


def test_a_retry_returns_the_old_positions(path: Path) -> None:
    """What was committed, though nobody learned of it, is not appended twice."""

    async def work(log: VirtualLog) -> None:
        log.unanswered = 1
        assert [place.seq for place in await append(log, event(2), event(3))] == [2, 3]
        assert log.unanswered == 0
        assert numbers(await all_records(log)) == [1, 2, 3]

    in_virtual_time(path, work)


def test_what_waits_for_the_retry_is_done(path: Path) -> None:
    """The retry finds its batch in the file, and does what came since all the same."""

    async def work(log: VirtualLog) -> None:
        await append(log, started("r1"))
        log.unanswered = 1
        receipt = log.append(log.stream(USER), event(2))
        await asyncio.sleep(0.5)
        async with asyncio.timeout(20):
            assert await log.request_cancel(USER, "r1") is CancelOutcome.STORED
            assert (await log.claim_command(USER, "c1", b"digest")).state is ClaimState.NEW
        assert (await receipt).seq == 3

    in_virtual_time(path, work)


def test_a_term_that_began_unanswered_is_known(path: Path) -> None:
    """Whoever began it is told that its outcome is not known; what follows stands in the new term."""

    async def work(log: VirtualLog) -> None:
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

    in_virtual_time(path, work)


def test_an_erasure_that_was_made_unanswered_is_known(path: Path) -> None:
    """The event that it leaves has its number, in the file as for those who read here."""

    async def work(log: VirtualLog) -> None:
        stream = await log.watch(USER, Bell())
        log.unanswered = 1
        with pytest.raises(LogUnavailable):
            await log.erase(USER)
        assert [place.seq for place in await append(log, event(2))] == [3]
        assert stream.tail is not None
        assert stream.tail.end == 4
        assert [record.type for record in await all_records(log)] == ["erased", "app.note"]

    in_virtual_time(path, work)


def test_a_batch_beside_an_erasure_is_not_appended_twice(path: Path) -> None:
    """Both were in one transaction that was not answered."""

    async def work(log: VirtualLog) -> None:
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

    in_virtual_time(path, work)


def test_a_trim_that_was_made_unanswered_is_known(path: Path) -> None:
    """The log goes on with what the file holds, and tells its readers of the loss."""

    async def work(log: VirtualLog) -> None:
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

    in_virtual_time(path, work, retention=Retention(events=8))

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise

import pytest

from catenary import WebSocketBridgeFactory
from catenary.errors import LogUnavailable, RunClosed
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import CancelOutcome, Retention
from catenary.eventlog.overdue import CANCEL_PATIENCE_MS, close_overdue_runs
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.seen import SeenWatch
from catenary.eventlog.stream import Stream
from catenary.fold import RunState, RunStatus
from catenary.position import Position
from tests.eventlog.support import USER, append, completed, delta, event, started


def refuse(stream: Stream, run_id: str, error: Exception) -> Receipt:
    """Let the store refuse an event of a run, as a log with a store does."""
    receipt = Receipt()
    receipt.fail(error)
    stream.runs[run_id].failure = receipt
    return receipt


# A failed receipt


async def test_an_unheard_failure_is_raised_by_the_next_verb_once() -> None:
    """The agent learns that an event was lost; after that it may go on."""
    log = MemoryLog()
    await append(log, started())
    refuse(log.stream(USER), "r1", LogUnavailable("the disk is gone"))
    with pytest.raises(LogUnavailable, match="disk"):
        log.append(log.stream(USER), delta("a"))
    await append(log, delta("b"))


async def test_a_failure_that_was_heard_is_not_raised_again() -> None:
    """Whoever awaited the receipt has dealt with it."""
    log = MemoryLog()
    await append(log, started())
    receipt = refuse(log.stream(USER), "r1", LogUnavailable("the disk is gone"))
    with pytest.raises(LogUnavailable):
        await receipt
    await append(log, delta("b"))


async def test_a_failure_holds_up_no_end(caplog: pytest.LogCaptureFixture) -> None:
    """What ends a run ends it; the failure that nobody heard is logged."""
    log = MemoryLog()
    await append(log, started())
    refuse(log.stream(USER), "r1", LogUnavailable("the disk is gone"))
    stream = log.stream(USER)
    stream.runs["r1"].request_cancel(1, None, None)
    close_overdue_runs(log, stream, CANCEL_PATIENCE_MS + 1)
    assert not stream.runs["r1"].is_open
    assert "the disk is gone" in caplog.text


# Cancels


async def test_runs_that_name_each_other_as_parents_are_cancelled() -> None:
    """Producers may say anything of their parents; a circle or a long chain harms nobody."""
    log = MemoryLog()
    stream = log.stream(USER)
    names = [f"r{number}" for number in range(2000)]
    for name in names:
        await append(log, started(name))
    for child, parent in pairwise([*names, names[0]]):
        stream.runs[child].parent_run_id = parent
    assert await log.request_cancel(USER, names[7]) is CancelOutcome.STORED
    assert all(run.is_cancel_requested for run in stream.runs.values())


async def test_a_run_that_ends_while_it_is_closed_harms_no_upkeep() -> None:
    """Its producer was faster: that is no error."""
    log = MemoryLog()
    await append(log, started("r1"), started("r2"))
    stream = log.stream(USER)
    for run in stream.runs.values():
        run.request_cancel(1, None, None)

    class Racing:
        holder = "h"

        def end_run(self, stream: Stream, run_id: str, entries_for: object) -> Receipt:
            if run_id == "r1":
                raise RunClosed(run_id, "it has ended")
            return log.end_run(stream, run_id, entries_for)  # type: ignore[arg-type]

    close_overdue_runs(Racing(), stream, CANCEL_PATIENCE_MS + 1)
    assert not stream.runs["r2"].is_open


# Folding


def text_of(log: MemoryLog, run_id: str) -> str:
    stream = log.stream(USER)
    return log.folded(stream, stream.runs[run_id]).text


async def test_a_state_that_was_asked_before_a_compaction_is_right_after_it() -> None:
    """Another run's end joins this one's deltas; the part folded before counts once."""
    log = MemoryLog()
    await append(log, started("r1"), started("r2"), delta("a", "r2"))
    assert text_of(log, "r2") == "a"
    await append(log, delta("b", "r2"), delta("c", "r2"), completed("r1"))
    await log.sweep()
    assert text_of(log, "r2") == "abc"


async def test_what_was_folded_and_compacted_may_be_dropped() -> None:
    """Retention folds the rest only."""
    log = MemoryLog(retention=Retention(open_events=20))
    await append(log, started("r1"), started("r2"), delta("a", "r2"))
    assert text_of(log, "r2") == "a"
    await append(log, delta("b", "r2"), completed("r1"))
    await log.sweep()
    await append(log, *(event(number) for number in range(2000)))
    await log.sweep()
    assert log.stream(USER).terms.first > 5
    assert text_of(log, "r2") == "ab"


async def ended(factory: WebSocketBridgeFactory) -> list[RunState]:
    return await factory.runs(USER)


async def test_a_run_of_which_nothing_is_left_is_still_listed() -> None:
    """Its events are gone; its name and how it ended are not."""
    log = MemoryLog(retention=Retention(events=10))
    factory = WebSocketBridgeFactory(log=log)
    await append(log, started(), delta("a"), completed())
    await append(log, *(event(number) for number in range(2000)))
    await log.sweep()
    (state,) = await ended(factory)
    assert (state.run_id, state.status) == ("r1", RunStatus.COMPLETED)
    assert state.agent_name == "writer"


async def test_a_run_that_nobody_heard_of_is_reported_whole_beyond_retention() -> None:
    """The application's database gets the text also if it is slower than retention."""
    log = MemoryLog(retention=Retention(events=10))
    await append(log, started(), delta("a"), delta("b"), completed())
    await append(log, *(event(number) for number in range(2000)))
    await log.sweep()
    heard: list[RunState] = []
    factory = WebSocketBridgeFactory(log=log)
    factory.on_run_end(heard.append)
    async with factory, asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0)
    assert (heard[0].text, heard[0].status) == ("ab", RunStatus.COMPLETED)


# Pages


@pytest.mark.parametrize("threads", [None, {"t1"}])
async def test_a_page_holds_no_more_bytes_than_asked_for(threads: set[str] | None) -> None:
    """Only one record alone may be larger."""
    log = MemoryLog()
    await append(log, *(event(n, size=size) for n, size in enumerate((10, 3000, 900, 10, 10))))
    place, sizes = await log.locate(USER, "start"), list[list[int]]()
    while sum(len(page) for page in sizes) < 5:
        page = await log.read(USER, place, limit_bytes=2000, thread_ids=threads)
        sizes.append([record.size_bytes for record in page.records])
        place = page.place
    assert all(sum(page) <= 2000 or len(page) == 1 for page in sizes)
    assert [len(page) for page in sizes] == [1, 1, 3]


async def test_a_filter_that_matches_nothing_holds_nobody_up() -> None:
    """A page looks at a bounded number of events, and says how far it got."""
    log = MemoryLog()
    await append(log, *(event(n, thread="other") for n in range(9000)))
    page = await log.read(USER, await log.locate(USER, "start"), thread_ids={"t1"})
    assert page.records == []
    assert 0 < page.place.seq < 9000
    assert not page.is_at_head


# Acknowledgements


async def test_waiting_for_acknowledgements_from_many_loops_at_once() -> None:
    """Nobody is forgotten and nobody stumbles over another's leaving."""

    class Store:
        async def seen(self, log_id: str) -> Position | None:
            return None

    watch = SeenWatch()
    answers: list[bool] = []
    done = threading.Event()

    async def wait_often(first: int) -> None:
        for number in range(first, first + 30):
            heard = await watch.wait(Store(), USER, Position("k", number), 5)
            answers.append(heard)

    def tell_on() -> None:
        while not done.is_set():
            watch.tell(USER, Position("k", 10_000))

    teller = threading.Thread(target=tell_on)
    teller.start()
    await asyncio.gather(
        *(asyncio.to_thread(asyncio.run, wait_often(first)) for first in (1, 1001, 2001))
    )
    done.set()
    teller.join()
    assert answers == [True] * 90

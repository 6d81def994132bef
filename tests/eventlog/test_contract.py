"""The contract of every event log: appending, receipts, reading, watching."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import threading
from collections.abc import Callable

import pytest

from catenary.errors import LifecycleError, RunClosed, UsageError
from catenary.eventlog import receipt as receipts
from catenary.eventlog.base import EventLog
from catenary.eventlog.receipt import Receipt
from catenary.position import Position
from tests.eventlog.support import (
    USER,
    Bell,
    all_records,
    append,
    cancelled,
    completed,
    delta,
    event,
    numbers,
    said,
    started,
    tool_ended,
    tool_started,
)

# Appending


async def test_numbers_are_dense_from_one(log: EventLog) -> None:
    """The first event has number 1 and each later one the next."""
    positions = await append(log, *(event(n) for n in range(20)))
    assert [position.seq for position in positions] == list(range(1, 21))
    assert len({position.epoch for position in positions}) == 1
    assert numbers(await all_records(log)) == list(range(20))


def _threads(count: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def run(at: int) -> None:
        try:
            work(at)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert not any(thread.is_alive() for thread in threads), "a deadlock"
    assert failures == []


@pytest.mark.parametrize("logs", [1, 10])
async def test_fifty_threads_and_three_loops_keep_each_ones_order(log: EventLog, logs: int) -> None:
    """50 threads, 3 of them with loops, append to one log and to many: dense, each in its order."""
    each = 40

    def append_in_thread(at: int) -> None:
        stream = log.stream(f"user_{at % logs}")
        given = [log.append(stream, event([at, n])) for n in range(each)]
        assert [receipt.result(10).seq for receipt in given] == sorted(
            receipt.result(10).seq for receipt in given
        )

    async def append_in_loop(at: int) -> None:
        stream = log.stream(f"user_{at % logs}")
        for n in range(each):
            await log.append(stream, event([at, n]))

    def work(at: int) -> None:
        if at < 3:
            asyncio.run(append_in_loop(at))
        else:
            append_in_thread(at)

    await asyncio.to_thread(_threads, 50, work)
    found = 0
    for number in range(logs):
        records = await all_records(log, f"user_{number}")
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        by_author: dict[int, list[int]] = {}
        for author_and_n in numbers(records):
            assert isinstance(author_and_n, list)
            by_author.setdefault(author_and_n[0], []).append(author_and_n[1])
        assert all(order == list(range(each)) for order in by_author.values())
        found += len(records)
    assert found == 50 * each


async def test_a_list_is_accepted_whole_or_not_at_all(log: EventLog) -> None:
    """A list with one event that the grammar forbids leaves the log and the run as they were."""
    stream = log.stream(USER)
    await append(log, started())
    with pytest.raises(LifecycleError, match="no tool call"):
        log.append_all(stream, [tool_started("c1"), event(1), tool_ended("c2")])
    given = log.append_all(stream, [tool_started("c1"), tool_ended("c1"), completed()])
    assert [(await receipt).seq for receipt in given] == [2, 3, 4]


async def test_the_grammar_is_asked_at_the_call(log: EventLog) -> None:
    """What its run does not allow raises at once and is not in the log."""
    stream = log.stream(USER)
    with pytest.raises(LifecycleError, match="has not started"):
        log.append(stream, delta("a"))
    log.append(stream, started())
    with pytest.raises(LifecycleError, match="started already"):
        log.append(stream, started())
    log.append(stream, tool_started("c1"))
    with pytest.raises(LifecycleError, match="tool calls are open"):
        log.append(stream, completed())
    await log.end_run(stream, "r1", lambda tools: cancelled("r1", tools))
    with pytest.raises(RunClosed):
        log.append(stream, delta("a"))
    types = [record.type for record in await all_records(log)]
    assert types == ["agent_started", "tool_executing", "tool_completed", "agent_cancelled"]


async def test_the_text_of_a_run_is_whole_however_its_deltas_were_joined(log: EventLog) -> None:
    """Deltas that wait together may share a record and a receipt; the text is the same."""
    stream = log.stream(USER)
    words = [f"wörd{n}\n" for n in range(300)]
    given = [log.append(stream, started()), *(log.append(stream, delta(word)) for word in words)]
    given.append(log.append(stream, delta("other", message="m2")))
    given.append(log.append(stream, completed()))
    places = [(await receipt).seq for receipt in given]
    assert places == sorted(places)
    records = await all_records(log)
    assert said(records) == "".join(words) + "other"
    assert records[-1].seq == places[-1]


async def test_a_repeated_key_returns_the_first_position(log: EventLog) -> None:
    """An idempotency key appends once; with other content it is an error of the caller."""
    first, again = await append(log, event(1, key="k"), event(1, key="k"))
    assert first == again
    with pytest.raises(UsageError, match="idempotency key"):
        log.append(log.stream(USER), event(2, key="k"))
    assert await append(log, event(3, key="k"), log_id="user_other")
    assert numbers(await all_records(log)) == [1]


async def test_repeats_within_one_list_share_a_position(log: EventLog) -> None:
    """A list may hold an event that was appended before."""
    stream = log.stream(USER)
    (first,) = await append(log, event(1, key="a"))
    given = log.append_all(stream, [event(1, key="a"), event(2, key="b")])
    assert [(await receipt).seq for receipt in given] == [first.seq, 2]


# Finalizers and signal handlers


class Mourner:
    """An object whose finalizer emits."""

    def __init__(self, log: EventLog, given: list[Receipt]) -> None:
        self.itself = self
        self.log = log
        self.given = given

    def __del__(self) -> None:
        stream = self.log.stream(USER)
        self.given.append(self.log.append(stream, event("late", key="same")))


async def test_a_finalizer_may_emit_within_an_append(log: EventLog) -> None:
    """Objects collected within appends emit without a deadlock, and every receipt is settled."""
    given: list[Receipt] = []
    own: list[Receipt] = []
    stream = log.stream(USER)
    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for n in range(100):
            Mourner(log, given)
            own.append(log.append(stream, event(n)))
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    async with asyncio.timeout(10):
        late = [await receipt for receipt in given]
        for receipt in own:
            await receipt
    assert len(late) == 100
    assert len(set(late)) == 1, "one key, one position"
    found = numbers(await all_records(log))
    assert [n for n in found if n != "late"] == list(range(100))


async def test_a_refusal_within_a_step_comes_through_the_receipt(log: EventLog) -> None:
    """What a finalizer emits against the grammar fails its receipt, and nothing else."""
    late: list[Receipt] = []
    with log._step():
        late.append(log.append(log.stream(USER), delta("never started")))
    with pytest.raises(LifecycleError):
        await late[0]


async def test_a_repeat_within_a_step_shares_the_outcome(log: EventLog) -> None:
    """Receipts that finalizers were given are settled, also where the key is known."""
    (first,) = await append(log, event(1, key="k"))
    with log._step():
        late = [log.append(log.stream(USER), event(1, key=key)) for key in ("k", "l", "l")]
    async with asyncio.timeout(5):
        assert [(await receipt).seq for receipt in late] == [first.seq, 2, 2]


async def test_a_signal_handler_may_emit_within_an_append(log: EventLog) -> None:
    """Events emitted by a signal handler that interrupts appends are all in the log."""
    stream = log.stream(USER)
    given: list[Receipt] = []

    def handle(signum: int, frame: object) -> None:
        given.append(log.append(stream, event("signal")))

    former = signal.signal(signal.SIGUSR1, handle)
    try:
        for n in range(200):
            os.kill(os.getpid(), signal.SIGUSR1)
            given.append(log.append(stream, event(n)))
    finally:
        signal.signal(signal.SIGUSR1, former)
    async with asyncio.timeout(10):
        positions = [await receipt for receipt in given]
    assert len({position.seq for position in positions}) == len(positions)
    assert len(await all_records(log)) == len(given)


# Receipts


async def test_a_receipt_is_heard_on_any_loop_and_in_any_thread(log: EventLog) -> None:
    """One receipt may be awaited on several loops and asked in threads."""
    receipt = log.append(log.stream(USER), event(1))

    async def ask() -> Position:
        return await receipt

    found = await asyncio.gather(
        asyncio.to_thread(receipt.result, 5),
        asyncio.to_thread(asyncio.run, ask()),
        ask(),
        ask(),
    )
    assert {position.seq for position in found} == {1}


async def test_result_on_a_running_loop_is_refused(log: EventLog) -> None:
    """Blocking the loop that a receipt may need is an error that says what to do."""
    receipt = log.append(log.stream(USER), event(1))
    with pytest.raises(UsageError, match="await"):
        receipt.result()
    await receipt


def test_a_failure_that_nobody_hears_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A failed receipt collected unheard is logged and counted."""
    before = receipts.unheard_failures
    with caplog.at_level(logging.ERROR, "catenary.receipt"):
        failed = Receipt()
        failed.fail(UsageError("refused"))
        del failed
        gc.collect()
    assert receipts.unheard_failures == before + 1
    assert "refused" in caplog.text


# Reading


async def test_pages_follow_each_other_without_a_hole(log: EventLog) -> None:
    """Pages of any size give all records once, in order."""
    seed = 20261121
    print(f"seed {seed}")
    order = random.Random(seed)
    await append(log, *(event(n, size=order.randrange(200)) for n in range(120)))
    for limit, limit_bytes in ((1, 10**6), (7, 10**6), (500, 1), (500, 900), (500, 10**6)):
        place = await log.locate(USER, "start")
        found = []
        while True:
            page = await log.read(USER, place, limit=limit, limit_bytes=limit_bytes)
            assert 0 < len(page.records) <= limit
            found += numbers(page.records)
            place = page.place
            if page.is_at_head:
                break
        assert found == list(range(120))


async def test_a_page_at_the_head_is_empty(log: EventLog) -> None:
    """A reader at the head gets nothing, and is told that it is there."""
    await append(log, event(1))
    head = await log.head(USER)
    page = await log.read(USER, head)
    assert page == ([], head, None, True)


async def test_a_new_log_has_a_head_that_stays(log: EventLog) -> None:
    """Asking an empty log for its head begins the term that its first event belongs to."""
    head = await log.head("user_new")
    assert head.seq == 0
    (position,) = await append(log, event(1), log_id="user_new")
    assert position == Position(head.epoch, 1)


async def test_threads_and_runs_filter_pages(log: EventLog) -> None:
    """A filtered reader gets its own events only, and its place goes beyond the others."""
    await append(log, *(event(n, thread=f"t{n % 3}") for n in range(30)), started("r9"))
    start = await log.locate(USER, "start")
    page = await log.read(USER, start, thread_ids={"t0", "t2"})
    assert numbers(page.records) == [n for n in range(30) if n % 3 != 1]
    page = await log.read(USER, start, run_id="r9")
    assert [record.type for record in page.records] == ["agent_started"]
    page = await log.read(USER, start, thread_ids={"nobody's"})
    assert page.records == []
    assert page.is_at_head
    assert page.place.seq == 31


async def test_logs_share_nothing(log: EventLog) -> None:
    """Ids that look alike are different logs, whatever they contain."""
    ids = ["a", "a\0", "a ", "A", "ä", "a/..", "a%2F", "conversation:42", "' OR 1=1 --", "日本"]
    for log_id in ids:
        await append(log, event(log_id), log_id=log_id)
    for log_id in ids:
        assert numbers(await all_records(log, log_id)) == [log_id]


@pytest.mark.parametrize("word", ["start", "open", "now"])
async def test_words_name_places(log: EventLog, word: str) -> None:
    """``start``, ``open`` and ``now`` are places; ``open`` is before the oldest open run."""
    await append(log, event(1), started("r1"), event(2), completed("r1"), event(3))
    assert (await log.locate(USER, word)).seq == {"start": 0, "open": 5, "now": 5}[word]
    await append(log, started("r2"), event(4))
    assert (await log.locate(USER, word)).seq == {"start": 0, "open": 5, "now": 7}[word]


@pytest.mark.parametrize("text", ["", "k3", "k3:", "k3:-1", "k3:x", "é:1", "k3:1:2", "later"])
async def test_nonsense_is_no_place(log: EventLog, text: str) -> None:
    """What is neither a word nor a position is the caller's error."""
    with pytest.raises(UsageError, match="position"):
        await log.locate(USER, text)


# Watching


async def test_a_watcher_is_woken_by_the_commit_with_the_frame_in_the_tail(log: EventLog) -> None:
    """After a commit the watcher was woken, and the tail holds the frame."""
    bell = Bell()
    await append(log, event(0))
    stream = await log.watch(USER, bell)
    assert stream.head == 1
    await append(log, event(1))
    assert bell.is_awake
    assert stream.tail is not None
    taken = stream.tail.after(1, 10**6, None)
    assert taken is not None
    assert b'"n":1' in taken[0][0]
    log.unwatch(stream, bell)
    bell.is_awake = False
    await append(log, event(2))
    assert not bell.is_awake


async def test_nothing_is_lost_between_watching_and_the_head(log: EventLog) -> None:
    """Whoever watches, then reads to the head, then follows the tail has every event once."""
    stream = log.stream(USER)
    done = threading.Event()

    def emit() -> None:
        given = [log.append(stream, event(n)) for n in range(2000)]
        given[-1].result(10)
        done.set()

    async def follow() -> list[int]:
        watched = await log.watch(USER, Bell())
        place, found = await log.locate(USER, "start"), []
        while not (done.is_set() and place.seq >= watched.head):
            taken = watched.tail.after(place.seq, 10**6, None) if watched.tail else None
            if taken is not None:
                found += list(range(place.seq + 1, taken[1] + 1)) if taken[0] else []
                assert len(taken[0]) == taken[1] - place.seq
                place = Position(place.epoch, taken[1])
            else:
                page = await log.read(USER, place)
                found += [record.seq for record in page.records]
                place = page.place
            await asyncio.sleep(0)
        return found

    thread = threading.Thread(target=emit)
    thread.start()
    async with asyncio.timeout(15):
        for followed in await asyncio.gather(*(follow() for _ in range(4))):
            assert followed == list(range(1, 2001))
    thread.join()

"""The contract of every event log: retention, compaction, erasing, terms and gaps."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catenary.errors import RunClosed
from catenary.eventlog.base import EventLog
from catenary.eventlog.batch import pack_all
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import Retention
from catenary.eventlog.sqlite.places import place_of, unpack
from catenary.fold import decode_state
from catenary.position import Position
from catenary.record import Record, merge_adjacent, rest_after
from catenary.wires.native import event_of
from tests.eventlog.conftest import OpenLog
from tests.eventlog.support import (
    USER,
    Bell,
    Clock,
    all_records,
    append,
    completed,
    delta,
    event,
    numbers,
    said,
    started,
    tool_started,
)

# Retention


async def test_the_oldest_events_go_beyond_the_number_kept(open_log: OpenLog) -> None:
    """Retention by number drops the oldest; a reader before them gets a gap."""
    log = await open_log(retention=Retention(events=10))
    positions = await append(log, *(event(n) for n in range(40)))
    await log.sweep()
    page = await log.read(USER, Position(positions[0].epoch, 0))
    assert page.gap is not None
    assert page.gap.reason == "retention"
    kept = len(page.records)
    assert 10 <= kept <= 26
    assert page.gap.resumes_at.seq == 41 - kept
    assert numbers(page.records) == list(range(40 - kept, 40))
    assert (await log.locate(USER, "start")).seq == 40 - kept


async def test_the_oldest_events_go_beyond_the_bytes_kept(open_log: OpenLog) -> None:
    """Retention by bytes drops the oldest."""
    log = await open_log(retention=Retention(bytes=50_000))
    await append(log, *(event(n, size=5000) for n in range(40)))
    await log.sweep()
    kept = numbers(await all_records(log))
    assert kept == list(range(40 - len(kept), 40))
    assert 5 <= len(kept) <= 11


async def test_old_events_go_by_age(open_log: OpenLog, clock: Clock) -> None:
    """Events older than the limit go with the upkeep; the numbers go on."""
    log = await open_log(retention=Retention(age=100.0))
    await append(log, *(event(n) for n in range(5)))
    clock.now += 60
    await append(log, event("later"))
    clock.now += 41
    await log.sweep()
    assert numbers(await all_records(log)) == ["later"]
    clock.now += 100
    await log.sweep()
    assert await all_records(log) == []
    assert (await log.locate(USER, "start")).seq == 6
    assert (await append(log, event(1)))[0].seq == 7


async def test_an_open_run_keeps_more(open_log: OpenLog, clock: Clock) -> None:
    """While a run is open its log keeps to the larger limits, whatever the age."""
    log = await open_log(retention=Retention(events=10, age=100.0, open_events=100))
    await append(log, started(), *(event(n) for n in range(60)))
    clock.now += 1000
    await log.sweep()
    assert len(await all_records(log)) == 61
    await append(log, completed(), event("x"))
    await log.sweep()
    assert len(await all_records(log)) <= 10


async def test_what_an_open_run_said_stays_folded(open_log: OpenLog) -> None:
    """Beyond the larger limits the oldest go, and what the run said in them is served folded."""
    log = await open_log(retention=Retention(events=10, open_events=50))
    stream = log.stream(USER)
    words = [f"w{n} " for n in range(150)]
    await append(log, started(), tool_started("c1"))
    for word in words:
        await log.append(stream, delta(word))
    await log.sweep()
    (run,) = await log.runs(USER)
    assert run.kept_fold is not None
    kept = decode_state(run.kept_fold)
    records = await all_records(log)
    assert len(records) < 80
    assert kept.text + said(records) == "".join(words)
    assert [tool.tool_call_id for tool in kept.tools] == ["c1"]
    state = await asyncio.to_thread(log.folded, stream, stream.runs["r1"])
    assert state.text == "".join(words)


# Compaction


async def test_what_an_ended_run_said_becomes_one_record(log: EventLog) -> None:
    """After the end the deltas of a message are one record; any place inside resumes exactly."""
    words = [f"ü{n}\\" for n in range(30)]
    await append(log, started())
    for word in words:
        await append(log, delta(word))
    await append(log, completed())
    await log.sweep()
    records = await all_records(log)
    assert [(record.first_seq, record.seq) for record in records] == [(1, 1), (2, 31), (32, 32)]
    epoch = records[0].epoch
    for seq in range(33):
        page = await log.read(USER, Position(epoch, seq))
        assert said(page.records) == "".join(words[max(0, seq - 1) :])
        assert page.records == [] or page.records[0].first_seq == seq + 1


def _records(texts: list[str]) -> list[Record]:
    made = []
    for seq, text in enumerate(texts, 1):
        entry = delta(text, message=f"m{len(text) % 2}")
        made.append(entry.to_record("e1", seq, 1000 + seq))
    return made


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=40))
def test_any_place_in_any_compacted_range_gives_exactly_the_rest(texts: list[str]) -> None:
    """However often it is compacted and stored, what follows a place is the same."""
    records = _records(texts)
    compacted = list(merge_adjacent(merge_adjacent(records)))
    stored = [
        record
        for row in pack_all(compacted)
        for record in unpack(place_of(7, row.last_seq), row.body)
    ]
    assert stored == compacted
    for seq in range(len(texts)):
        rest = [
            rest_after(record, seq) if record.first_seq <= seq else record
            for record in stored
            if record.seq > seq
        ]
        assert rest[0].first_seq == seq + 1
        assert "".join(event_of(record).data["delta"] for record in rest) == "".join(texts[seq:])


async def test_compaction_goes_through_a_long_log(log: EventLog) -> None:
    """What is more than one step's work is compacted by several sweeps, without a hole."""
    stream = log.stream(USER)
    for run in ("r1", "r2"):
        await log.append(stream, started(run))
        for begin in range(0, 3000, 300):
            entries = [delta(f"{n} ", run, message=f"m{n % 2}") for n in range(begin, begin + 300)]
            await log.append_all(stream, entries)[-1]
        await log.append(stream, completed(run))
    before = said(await all_records(log), "r1"), said(await all_records(log), "r2")
    for _ in range(4):
        await log.sweep()
    records = await all_records(log)
    assert (said(records, "r1"), said(records, "r2")) == before
    assert records[-1].seq == 6004


# Erasing


async def test_an_erased_thread_leaves_its_numbers(log: EventLog) -> None:
    """Of a thread's events only their numbers stay; other threads are as they were."""
    await append(log, *(event(n, thread=f"t{n % 2}") for n in range(10)), started("r9"))
    assert await log.erase(USER, "t1") == 6
    records = await all_records(log)
    assert records[-1].seq == 11
    left = [record for record in records if record.type != "erased"]
    assert numbers(left) == [0, 2, 4, 6, 8]
    erased = [event_of(record) for record in records if record.type == "erased"]
    assert all(found.data == {"thread_id": "t1"} for found in erased)
    with pytest.raises(RunClosed, match="erased"):
        log.append(log.stream(USER), delta("a", "r9"))
    assert (await append(log, event(1)))[0].seq == 12


async def test_erasing_all_leaves_a_gap_and_says_so(log: EventLog) -> None:
    """After erasing all, readers behind it get a gap and the event that tells."""
    positions = await append(log, started(), *(event(n, key=f"k{n}") for n in range(5)))
    await append(log, event("another's"), log_id="user_2")
    await log.claim_command(USER, "m1", b"x")
    assert await log.erase(USER) == 6
    page = await log.read(USER, positions[1])
    assert page.gap is not None
    assert (page.gap.reason, page.gap.resumes_at.seq) == ("retention", 7)
    assert [(record.seq, record.type) for record in page.records] == [(7, "erased")]
    assert await log.runs(USER, only_open=True) == []
    assert (await append(log, event(0, key="k0")))[0].seq == 8
    assert numbers(await all_records(log, "user_2")) == ["another's"]


async def test_erasing_clears_the_tail(log: EventLog) -> None:
    """A reader that is behind finds no erased text in the tail."""
    await append(log, event(0))
    stream = await log.watch(USER, Bell())
    await append(log, event("secret"))
    await log.erase(USER, "t1")
    assert stream.tail is not None
    assert stream.tail.after(1, 10**6, None) is None


# Terms and gaps


async def test_a_new_term_goes_on_with_the_numbers(log: EventLog) -> None:
    """Numbers only rise over terms; reading crosses the boundary with a gap of none."""
    first = await append(log, *(event(n) for n in range(3)))
    stream = await log.watch(USER, bell := Bell())
    assert await log.new_term(USER) == 1
    assert bell.is_awake
    assert stream.epoch != first[0].epoch
    second = await append(log, event(3))
    assert second[0].seq == 4
    assert second[0].epoch == (await log.head(USER)).epoch == stream.epoch
    assert numbers(await all_records(log)) == [0, 1, 2, 3]
    page = await log.read(USER, first[1])
    assert page.gap is None
    assert numbers(page.records) == [2]
    page = await log.read(USER, page.place)
    assert page.gap is not None
    assert (page.gap.reason, page.gap.resumes_at) == ("epoch", second[0])
    assert numbers(page.records) == [3]


async def test_new_terms_for_all(log: EventLog) -> None:
    """After a restore every log begins a new term."""
    for user in ("a", "b"):
        await append(log, event(1), log_id=user)
    before = {user: await log.head(user) for user in ("a", "b")}
    assert await log.new_term() == 2
    for user, head in before.items():
        after = await log.head(user)
        assert after.epoch != head.epoch
        assert after.seq == head.seq


async def test_a_place_of_an_unknown_term_is_a_gap_from_the_first(log: EventLog) -> None:
    """A position of a term that nobody knows resumes at the first event retained."""
    await append(log, event(0), event(1))
    place = await log.locate(USER, "zz:1")
    page = await log.read(USER, place)
    assert page.gap is not None
    assert (page.gap.reason, page.gap.resumes_at.seq) == ("epoch", 1)
    assert numbers(page.records) == [0, 1]


async def test_a_place_in_the_future_proves_a_loss(log: EventLog) -> None:
    """A position beyond the head begins a new term, so that no number is used twice."""
    first = await append(log, event(0), event(1))
    lost = await log.locate(USER, f"{first[0].epoch}:9")
    page = await log.read(USER, lost)
    assert page.gap is not None
    assert page.gap.reason == "future"
    head = await log.head(USER)
    assert head.epoch != first[0].epoch
    assert page.gap.resumes_at == Position(head.epoch, 3)
    assert (await log.read(USER, first[0])).gap is None
    assert await log.locate(USER, f"{first[0].epoch}:9") == lost
    assert (await log.head(USER)) == head, "the same loss begins one term"


async def test_eight_former_terms_are_kept(log: EventLog) -> None:
    """Positions of the last eight terms resume exactly; older ones get a gap."""
    positions = []
    for n in range(11):
        positions += await append(log, event(n))
        await log.new_term(USER)
    assert (await log.read(USER, positions[0])).gap is not None
    page = await log.read(USER, positions[-1])
    assert page.gap is not None
    assert page.gap.reason == "epoch"
    assert page.gap.resumes_at.seq == 12


async def test_what_stands_in_a_forgotten_term_can_be_read(log: EventLog) -> None:
    """It counts as of the oldest term that is known: a reader meets no epoch without a gap."""
    for n in range(11):
        await append(log, event(n))
        await log.new_term(USER)
    place = await log.locate(USER, "start")
    read: list[object] = []
    while True:
        page = await log.read(USER, place)
        assert {record.epoch for record in page.records} <= {page.place.epoch}
        assert page.gap is not None or page.place.epoch == place.epoch
        read += numbers(page.records)
        place = page.place
        if page.is_at_head:
            break
    assert read == list(range(11))


async def test_a_node_in_memory_drops_the_idle_users_oldest(clock: Clock) -> None:
    """The log in memory stays under its limit for all users together."""
    log = MemoryLog(clock=clock, node_bytes=100_000)
    for user in ("idle", "busy"):
        clock.now += 1
        await append(log, *(event(n, size=3000) for n in range(25)), log_id=user)
    await log.sweep()
    assert log.statistics()["bytes_held"] <= 100_000
    assert len(await all_records(log, "busy")) == 25
    assert len(await all_records(log, "idle")) < 10

"""The contract of every event log: runs, cancelling, leases, commands, what was seen."""

from __future__ import annotations

import asyncio

import pytest

from catenary.errors import RunClosed
from catenary.eventlog.base import EventLog
from catenary.eventlog.model import CancelOutcome, ClaimState
from catenary.position import Position
from catenary.wires.native import event_of
from tests.eventlog.conftest import OpenLog
from tests.eventlog.support import (
    NOW,
    USER,
    Clock,
    all_records,
    append,
    completed,
    delta,
    event,
    started,
    tool_ended,
    tool_started,
)

# Runs


async def test_the_log_knows_its_runs(log: EventLog) -> None:
    """Open and ended runs are listed oldest first, with what is known of them."""
    await append(log, started("r1"), event(1), started("r2", thread="t2"), completed("r1"))
    await append(log, started("r1", user="user_2"), log_id="user_2")
    first, second = await log.runs(USER)
    assert (first.run_id, first.is_open, first.end_type) == ("r1", False, "agent_completed")
    assert (first.first_seq, first.last_seq, first.agent_name) == (1, 4, "writer")
    assert (second.run_id, second.is_open, second.thread_id) == ("r2", True, "t2")
    assert second.started_at == second.last_at == int(NOW * 1000)
    assert [run.run_id for run in await log.runs(USER, only_open=True)] == ["r2"]
    assert [run.run_id for run in await log.runs(USER, thread_id="t1")] == ["r1"]
    assert {run.log_id for run in await log.find_run("r1")} == {USER, "user_2"}
    assert {(run.log_id, run.run_id) for run in await log.open_runs()} == {
        (USER, "r2"),
        ("user_2", "r1"),
    }


async def test_an_open_run_tells_its_last_event(log: EventLog, clock: Clock) -> None:
    """What is known of an open run goes on with its events."""
    await append(log, started())
    clock.now += 7
    await append(log, delta("a"), event(1))
    (run,) = await log.runs(USER)
    assert (run.last_seq, run.last_at) == (2, int((NOW + 7) * 1000))


async def test_a_run_is_folded_with_what_waits(log: EventLog) -> None:
    """The state of a run held here has all that was accepted, committed or not."""
    stream = log.stream(USER)
    log.append(stream, started())
    for n in range(100):
        log.append(stream, delta(f"{n},"))
    receipt = log.append(stream, tool_started("c1"))
    said = "".join(f"{n}," for n in range(100))
    for _ in range(2):
        state = await asyncio.to_thread(log.folded, stream, stream.runs["r1"])
        assert state.text == said
        assert [tool.tool_call_id for tool in state.tools] == ["c1"]
        await receipt


async def test_ended_runs_are_reported_until_someone_heard(log: EventLog) -> None:
    """An ended run is unreported until it is marked; an end calls ``run_ended``."""
    ends: list[int] = []
    log.run_ended = lambda: ends.append(1)
    for run in ("r1", "r2", "r3"):
        await append(log, started(run))
    assert await log.unreported_runs(10) == []
    await append(log, completed("r2"), completed("r1"))
    assert len(ends) == 2
    assert [run.run_id for run in await log.unreported_runs(10)] == ["r2", "r1"]
    assert len(await log.unreported_runs(1)) == 1
    await log.mark_reported(USER, "r2")
    assert [run.run_id for run in await log.unreported_runs(10)] == ["r1"]


async def test_a_cancel_is_stored_and_the_holder_is_told(log: EventLog) -> None:
    """The request is answered by what is known of the run, and calls the holder back once told."""
    stream = log.stream(USER)
    await append(log, started("r1"), started("r2"), completed("r2"))
    told: list[str] = []
    stream.runs["r1"].on_cancel.append(lambda: told.append("r1"))
    assert await log.request_cancel(USER, "r1", reason="enough", by="user") is CancelOutcome.STORED
    assert told == ["r1"]
    held = stream.runs["r1"]
    assert (held.is_cancel_requested, held.cancel_reason, held.cancel_by) == (
        True,
        "enough",
        "user",
    )
    (run,) = await log.runs(USER, only_open=True)
    assert run.cancel_requested_at == int(NOW * 1000)
    assert await log.request_cancel(USER, "r2") is CancelOutcome.ALREADY_ENDED
    assert await log.request_cancel(USER, "r3") is CancelOutcome.NOT_FOUND
    assert await log.request_cancel("user_2", "r1") is CancelOutcome.NOT_FOUND


async def test_a_cancelled_run_that_goes_on_is_closed_and_fenced(
    log: EventLog, clock: Clock
) -> None:
    """Ten seconds after the request the log closes the run with its tools; it takes no more."""
    stream = log.stream(USER)
    await append(log, started(), tool_started("c1"))
    await log.request_cancel(USER, "r1", reason="enough")
    clock.now += 9.9
    await log.sweep()
    assert stream.runs["r1"].is_open
    clock.now += 0.1
    await log.sweep()
    with pytest.raises(RunClosed, match="did not stop"):
        log.append(stream, delta("late"))
    await append(log, event("after"))
    records = await all_records(log)
    assert [record.type for record in records[2:]] == [
        "tool_completed",
        "agent_cancelled",
        "app.note",
    ]
    assert event_of(records[3]).data["reason"] == "enough"


async def test_a_leased_run_is_lost_when_its_events_stop(log: EventLog, clock: Clock) -> None:
    """A run over HTTP lives by its own events; a lease after the last one it is closed."""
    stream = log.stream(USER)
    await append(log, started("leased", lease=30.0), started("held"))
    clock.now += 29
    await append(log, delta("a", "leased"))
    clock.now += 30
    await log.sweep()
    assert stream.runs["leased"].is_open
    clock.now += 0.1
    await log.sweep()
    await append(log, event("after"))
    records = await all_records(log)
    end = event_of(records[-2])
    assert (end.type, end.run_id, end.data["code"]) == ("agent_error", "leased", "producer_lost")
    assert end.data["holder"]["last_heard"] == int((NOW + 29) * 1000)
    with pytest.raises(RunClosed, match="lease"):
        log.append(stream, delta("b", "leased"))
    log.append(stream, delta("b", "held"))


async def test_tools_that_ended_are_not_closed_again(log: EventLog, clock: Clock) -> None:
    """Closing a run closes the tools that are at work, and only those."""
    await append(log, started(lease=1.0), tool_started("c1"), tool_ended("c1"), tool_started("c2"))
    clock.now += 2
    await log.sweep()
    await append(log, event("after"))
    closed = [event_of(record) for record in await all_records(log)][4:6]
    assert [found.type for found in closed] == ["tool_completed", "agent_error"]
    assert closed[0].data["tool_call_id"] == "c2"
    assert closed[0].data["success"] is False


# Commands


async def test_a_command_is_claimed_once(log: EventLog) -> None:
    """The first claim is new; then it is held, then done; other content is a conflict."""
    assert (await log.claim_command(USER, "m1", b"x")).state is ClaimState.NEW
    assert (await log.claim_command(USER, "m1", b"x")).state is ClaimState.HELD
    assert (await log.claim_command(USER, "m1", b"y")).state is ClaimState.CONFLICT
    assert (await log.claim_command("user_2", "m1", b"y")).state is ClaimState.NEW
    await log.finish_command(USER, "m1", b"reply")
    assert await log.claim_command(USER, "m1", b"x") == (ClaimState.DONE, b"reply")


async def test_one_of_many_claims_is_new(log: EventLog) -> None:
    """Of twenty claims at once one is new."""
    claims = await asyncio.gather(*(log.claim_command(USER, "m1", b"x") for _ in range(20)))
    assert sorted(claim.state.value for claim in claims) == ["held"] * 19 + ["new"]


async def test_the_window_of_commands_is_a_day_or_a_thousand(log: EventLog, clock: Clock) -> None:
    """An id may be claimed anew after 24 h, or after 1,000 others of the log."""
    await log.claim_command(USER, "old", b"x")
    await log.claim_command("user_2", "other", b"x")
    for begin in range(0, 1000, 100):
        await asyncio.gather(
            *(log.claim_command(USER, f"m{n}", b"x") for n in range(begin, begin + 100))
        )
    assert (await log.claim_command(USER, "m999", b"x")).state is ClaimState.HELD
    assert (await log.claim_command("user_2", "other", b"x")).state is ClaimState.HELD
    assert (await log.claim_command(USER, "old", b"x")).state is ClaimState.NEW
    clock.now += 24 * 3600 + 1
    assert (await log.claim_command(USER, "m999", b"y")).state is ClaimState.NEW


# Values that expire


async def test_a_value_is_kept_until_it_expires(log: EventLog, clock: Clock) -> None:
    """A kept value may be read until its time is over, and replaced."""
    await log.put("k", b"1", 10.0)
    assert await log.get("k") == b"1"
    await log.put("k", b"2", 10.0)
    clock.now += 9
    assert await log.get("k") == b"2"
    clock.now += 1
    assert await log.get("k") is None
    assert await log.take("k") is None
    await log.sweep()


async def test_one_of_twenty_takers_gets_the_value(log: EventLog) -> None:
    """Taking is atomic, over several loops and threads."""
    await log.put("ticket", b"v", 30.0)

    async def take_ten() -> list[bytes | None]:
        return await asyncio.gather(*(log.take("ticket") for _ in range(10)))

    taken = await asyncio.gather(take_ten(), asyncio.to_thread(asyncio.run, take_ten()))
    assert [value for values in taken for value in values if value] == [b"v"]
    assert await log.get("ticket") is None


# What was seen


async def test_seen_only_rises_and_never_beyond_the_head(log: EventLog) -> None:
    """The furthest acknowledged place of the term counts; nonsense is ignored."""
    await append(log, *(event(n) for n in range(5)))
    epoch = (await log.head(USER)).epoch
    assert await log.seen(USER) is None
    for seq in (3, 2, 99):
        await log.note_seen(USER, Position(epoch, seq))
    await log.note_seen(USER, Position("other", 4))
    assert await log.seen(USER) == Position(epoch, 3)
    await log.new_term(USER)
    assert await log.seen(USER) is None


async def test_waiting_until_it_was_seen(log: EventLog) -> None:
    """Whoever waits for an acknowledgement is told, or told that the time is over."""
    (place,) = await append(log, event(1))
    assert not await log.wait_seen(USER, place, timeout=0.01)
    waiting = asyncio.create_task(log.wait_seen(USER, place, timeout=5))
    await asyncio.sleep(0)
    await log.note_seen(USER, place)
    assert await waiting


async def test_logs_can_be_opened_again(open_log: OpenLog) -> None:
    """A log that was stopped starts again, and goes on where it was."""
    log = await open_log()
    (first,) = await append(log, event(1))
    await log.stop()
    await log.start()
    (second,) = await append(log, event(2))
    assert second == Position(first.epoch, 2)
    assert log.problem() is None
    assert log.statistics()["intake_bytes"] == 0

"""What is particular to the log in Redis: many processes, and what a store may lose."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from catenary.errors import ConfigError, LogUnavailable, RunClosed, UsageError
from catenary.eventlog.model import CancelOutcome, ClaimState, Durability
from catenary.eventlog.redis.log import RedisLog
from catenary.events import AgentError
from catenary.position import Position
from catenary.record import Record
from catenary.validate.chaos import CALM, ChaosProxy, Faults, Incident
from catenary.wires.native import event_of
from tests.eventlog.following import Follower, until
from tests.eventlog.support import (
    USER,
    Bell,
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
from tests.redis_server import RedisServer

Opened = Callable[..., Any]


@pytest_asyncio.fixture
async def nodes(redis: RedisServer) -> AsyncIterator[tuple[RedisLog, RedisLog]]:
    """Two logs over one server, as two processes have them."""
    first, second = RedisLog(redis.url, lease=1.5), RedisLog(redis.url, lease=1.5)
    await first.start()
    await second.start()
    yield first, second
    await first.stop()
    await second.stop()


# Many processes


async def test_two_processes_write_one_log(nodes: tuple[RedisLog, RedisLog]) -> None:
    """Both append at once; every reader on either sees one dense order, in each one's order."""
    followers = [await Follower.of(node) for node in nodes]
    given = [
        [node.append(node.stream(USER), event([at, n])) for n in range(300)]
        for at, node in enumerate(nodes)
    ]
    for receipts in given:
        places = [(await receipt).seq for receipt in receipts]
        assert places == sorted(places)
    for follower in followers:
        await follower.reach(600)
        assert len(follower.bodies) == 600
        assert follower.gaps == []
    found = numbers(await all_records(nodes[0]))
    for at in (0, 1):
        assert [n for n in found if isinstance(n, list) and n[0] == at] == [
            [at, n] for n in range(300)
        ]


async def test_live_events_reach_the_other_process_without_a_read(
    nodes: tuple[RedisLog, RedisLog],
) -> None:
    """A commit on one node wakes the watchers of another, with the frame in their tail."""
    first, second = nodes
    bell = Bell()
    stream = await second.watch(USER, bell)
    await append(first, event("live"))
    await until(lambda: bell.is_awake)
    assert stream.tail is not None
    taken = stream.tail.after(0, 10**6, None)
    assert taken is not None
    assert b'"n":"live"' in taken[0][0]
    second.unwatch(stream, bell)
    assert stream.tail is None


async def test_a_wake_up_that_was_lost_is_made_up_for(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """After its live connection was cut a node compares heads, and its readers miss nothing."""
    first, second = nodes
    follower = await Follower.of(second)
    await append(first, event(0))
    await follower.reach(1)
    with redis.client() as client:
        for _ in range(5):
            client.client_kill_filter(_type="pubsub")
            await append(first, *(event(n) for n in range(20)))
    await follower.reach(101)
    assert len(follower.bodies) == 101
    assert follower.gaps == []


async def test_the_channel_is_heard_only_for_those_connected_here(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """A log's channel is left with its last reader."""
    first, _ = nodes
    one, two = Bell(), Bell()
    stream = await first.watch(USER, one)
    assert await first.watch(USER, two) is stream

    def heard() -> int:
        is_sharded = client.info()["redis_version"] >= "7"
        words = "SHARDCHANNELS" if is_sharded else "CHANNELS"
        channels: list[bytes] = client.execute_command("PUBSUB", words, "*:live:*")
        return len(channels)

    with redis.client() as client:
        assert heard() == 1
        first.unwatch(stream, one)
        first.unwatch(stream, one)
        assert heard() == 1
        first.unwatch(stream, two)
        await until(lambda: not heard())


async def test_watching_again_while_the_channel_is_being_left(
    nodes: tuple[RedisLog, RedisLog],
) -> None:
    """However watchers come and go, one that stays is woken."""
    first, second = nodes
    for n in range(30):
        stream = await first.watch(USER, gone := Bell())
        first.unwatch(stream, gone)
        stream = await first.watch(USER, stays := Bell())
        await append(second, event(n))
        await until(lambda stays=stays: stays.is_awake)  # type: ignore[misc]
        first.unwatch(stream, stays)


async def test_what_is_appended_while_a_watch_begins_is_seen(
    nodes: tuple[RedisLog, RedisLog],
) -> None:
    """The channel is heard before the head is read, so nothing falls between."""
    first, second = nodes
    for n in range(1, 200):
        bell = Bell()
        receipt = second.append(second.stream(USER), event(n))
        stream = await first.watch(USER, bell)
        await receipt
        await until(lambda stream=stream, n=n: stream.head == n, 3.0)  # type: ignore[misc]
        first.unwatch(stream, bell)
        await until(lambda: first._listener is None or not first._listener._wanted)


async def test_a_refused_key_may_be_used_again(nodes: tuple[RedisLog, RedisLog]) -> None:
    """Nothing was appended under it: a list is refused whole where one of its runs is another's."""
    first, second = nodes
    await append(first, started(lease=30.0))
    stream = second.stream(USER)
    await second.adopt_runs(USER, ["r1"], [])
    await first.adopt_runs(USER, ["r1"], [])
    given = second.append_all(stream, [event(1, key="k"), delta("a")])
    for receipt in given:
        with pytest.raises(RunClosed):
            await receipt
    assert (await append(second, event(1, key="k")))[0].seq == 2


async def test_an_idempotency_key_holds_on_every_node(nodes: tuple[RedisLog, RedisLog]) -> None:
    """A repeat on another node returns the first one's position; other content is an error."""
    first, second = nodes
    (place,) = await append(first, event(1, key="k"))
    assert await append(second, event(1, key="k")) == [place]
    with pytest.raises(UsageError, match="idempotency key"):
        await append(second, event(2, key="k"))
    assert numbers(await all_records(second)) == [1]


async def test_old_idempotency_keys_are_forgotten(nodes: tuple[RedisLog, RedisLog]) -> None:
    """At least the last 2,000 keys of a log are known; their number is bounded."""
    first, second = nodes
    for begin in range(0, 5000, 500):
        await append(first, *(event(n, key=f"k{n}") for n in range(begin, begin + 500)))
    (again,) = await append(second, event(3001, key="k3001"))
    assert again.seq == 3002
    assert (await append(second, event(0, key="k0")))[0].seq == 5001


async def test_a_batch_keeps_what_was_said_of_it(nodes: tuple[RedisLog, RedisLog]) -> None:
    """A batch of which a part was refused is tried again without it, also where all fails once."""
    first, second = nodes
    await append(first, started())
    stream = second.stream(USER)
    blocked = asyncio.create_task(second._do(lambda _: time.sleep(0.3)))
    await asyncio.sleep(0.1)
    before, refused, after = [
        second.append(stream, entry) for entry in (event(1), started(), event(2))
    ]
    failing = asyncio.create_task(second._do(lambda _: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        await failing
    await blocked
    with pytest.raises(RunClosed):
        await refused
    assert [(await before).seq, (await after).seq] == [2, 3]
    assert [record.seq for record in await all_records(first)] == [1, 2, 3]


# Runs


async def test_a_run_is_its_owners(nodes: tuple[RedisLog, RedisLog]) -> None:
    """Another process may say something beside a run, and neither start nor continue it."""
    first, second = nodes
    await append(first, started(), delta("a"))
    await append(second, event("beside", run="r1"))
    with pytest.raises(RunClosed, match="has been before"):
        await append(second, started())
    with pytest.raises(RunClosed):
        second.append(second.stream(USER), delta("b"))
    await append(first, delta("c"), completed())
    assert said(await all_records(second)) == "ac"
    assert [run.is_open for run in await second.runs(USER)] == [False]


async def test_a_lost_process_s_runs_are_closed_and_it_is_fenced(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """A process that does not renew its lease loses its runs; what it says later is refused."""
    first, second = nodes
    await append(first, started(), delta("a"), tool_started("c1"))
    first._lease.is_due = lambda now: False  # type: ignore[method-assign]
    records: list[Record] = []
    async with asyncio.timeout(15):
        while len(records) < 5:
            await second.sweep()
            await asyncio.sleep(0.1)
            records = await all_records(second)
    tool, end = map(event_of, records[3:])
    assert (tool.type, tool.data["tool_call_id"], tool.data["success"]) == (
        "tool_completed",
        "c1",
        False,
    )
    assert (end.type, end.data["code"]) == ("agent_error", "producer_lost")
    assert end.data["holder"]["holder"] == first.holder
    late = first.append(first.stream(USER), delta("late"))
    with pytest.raises(RunClosed):
        await late
    with pytest.raises(RunClosed):
        first.append(first.stream(USER), delta("later"))
    await append(first, event("beside"))
    assert len(await all_records(first)) == 6
    assert [run.run_id for run in await second.unreported_runs(10)] == ["r1"]


async def test_a_living_process_s_runs_stay(nodes: tuple[RedisLog, RedisLog]) -> None:
    """Leases that are renewed are not lost, however long nothing is said."""
    first, second = nodes
    await append(first, started())
    end = time.monotonic() + 4
    while time.monotonic() < end:
        await second.sweep()
        await asyncio.sleep(0.1)
    await append(first, delta("a"), completed())


async def test_nobody_judges_before_a_whole_lease(redis: RedisServer) -> None:
    """A process that has just come ends nobody's runs, though their lease is over."""
    first = RedisLog(redis.url, lease=1.0)
    await append(first, started())
    first._lease.is_due = lambda now: False  # type: ignore[method-assign]
    await asyncio.sleep(1.2)
    second = RedisLog(redis.url, lease=2.0)
    await second.start()
    for _ in range(5):
        await second.sweep()
    assert [run.is_open for run in await second.runs(USER)] == [True]
    async with asyncio.timeout(10):
        while (await second.runs(USER))[0].is_open:
            await second.sweep()
            await asyncio.sleep(0.1)
    await first.stop()
    await second.stop()


async def test_a_run_is_cancelled_from_another_node(nodes: tuple[RedisLog, RedisLog]) -> None:
    """The request reaches the owner at once, with its sub-runs; foreign runs are unknown."""
    first, second = nodes
    await append(first, started("r1"), started("r2"), completed("r2"))
    told = threading.Event()
    held = first.stream(USER).runs["r1"]
    held.on_cancel.append(told.set)
    stored = await second.request_cancel(USER, "r1", reason="enough", by="user")
    assert stored is CancelOutcome.STORED
    assert await asyncio.to_thread(told.wait, 5)
    assert (held.cancel_reason, held.cancel_by) == ("enough", "user")
    assert await second.request_cancel(USER, "r2") is CancelOutcome.ALREADY_ENDED
    assert await second.request_cancel(USER, "r9") is CancelOutcome.NOT_FOUND


async def test_an_owner_that_missed_a_cancel_learns_with_its_next_append(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """A wake-up may be lost; the next append, or the next renewal, brings the cancel."""
    first, second = nodes
    await append(first, started("r1"), started("r2"))
    held = first.stream(USER).runs
    assert first._listener is not None
    first._listener.close()
    first._lease.is_due = lambda now: False  # type: ignore[method-assign]
    await second.request_cancel(USER, "r1", reason="enough")
    await append(first, delta("a", "r2"))
    assert not held["r1"].is_cancel_requested
    await append(first, delta("a", "r1"))
    assert held["r1"].is_cancel_requested
    await second.request_cancel(USER, "r2")
    del first._lease.is_due
    await until(lambda: held["r2"].is_cancel_requested)


async def test_a_run_is_taken_over_on_purpose(nodes: tuple[RedisLog, RedisLog]) -> None:
    """The new holder goes on where the run is; the old one is fenced."""
    first, second = nodes
    await append(first, started(), delta("a"), tool_started("c1"))
    assert await asyncio.to_thread(second.take_over, second.stream(USER), "r1")
    assert not await asyncio.to_thread(second.take_over, second.stream(USER), "r9")
    held = second.stream(USER).runs["r1"]
    assert list(held.grammar.open_tools) == ["c1"]
    with pytest.raises(RunClosed):
        await append(first, delta("late"))
    await append(second, delta("b"))
    state = await asyncio.to_thread(second.folded, second.stream(USER), held)
    assert state.text == "ab"


async def test_runs_over_http_go_on_on_any_node(nodes: tuple[RedisLog, RedisLog]) -> None:
    """A leased run belongs to whoever was asked last; the grammar holds over all nodes."""
    first, second = nodes
    await append(first, started(lease=30.0), delta("a"))
    for node, word in ((second, "b"), (first, "c"), (second, "d")):
        assert await node.adopt_runs(USER, ["r1"], []) == frozenset()
        await append(node, delta(word))
    await append(second, tool_started("c1"))
    await first.adopt_runs(USER, ["r1"], [])
    with pytest.raises(UsageError, match="tool calls are open"):
        first.append(first.stream(USER), completed())
    await second.adopt_runs(USER, ["r1"], [])
    assert said(await all_records(first)) == "abcd"
    await append(first, started("mine"))
    assert await second.adopt_runs(USER, ["mine"], []) == {"mine"}


async def test_a_run_is_closed_from_another_node(nodes: tuple[RedisLog, RedisLog]) -> None:
    """An operator ends a run wherever it lives, with its open tools, and it is fenced."""
    first, second = nodes
    await append(first, started(), tool_started("c1"))
    end = AgentError(code="closed", message="it hangs")
    assert await second.close_run(USER, "r1", end, "an operator closed it")
    assert not await second.close_run(USER, "r1", end, "an operator closed it")
    types = [record.type for record in await all_records(first)]
    assert types == ["agent_started", "tool_executing", "tool_completed", "agent_error"]
    with pytest.raises(RunClosed):
        await append(first, delta("late"))


async def test_an_ended_run_is_reported_by_one_node(nodes: tuple[RedisLog, RedisLog]) -> None:
    """What one node took to report the other leaves alone, until it is marked."""
    first, second = nodes
    await append(first, started(), completed())
    assert [run.run_id for run in await first.unreported_runs(10)] == ["r1"]
    assert await second.unreported_runs(10) == []
    assert [run.run_id for run in await first.unreported_runs(10)] == ["r1"]
    await first.mark_reported(USER, "r1")
    assert await first.unreported_runs(10) == []


# Commands, what was seen, presence


async def test_a_message_is_claimed_once_over_all_nodes(nodes: tuple[RedisLog, RedisLog]) -> None:
    """Of claims on both nodes one is new; the stored reply is everyone's."""
    claims = await asyncio.gather(*(node.claim_command(USER, "m1", b"x") for node in nodes * 5))
    assert sorted(claim.state.value for claim in claims) == [
        *["elsewhere"] * 5, *["held"] * 4, "new",
    ]  # fmt: skip
    await nodes[0].finish_command(USER, "m1", b"\x00reply\xff")
    for node in nodes:
        assert await node.claim_command(USER, "m1", b"x") == (ClaimState.DONE, b"\x00reply\xff")


async def test_a_message_of_a_lost_process_is_interrupted(redis: RedisServer) -> None:
    """Once its holder's lease is over a claim without a reply is interrupted."""
    first, second = RedisLog(redis.url, lease=1.0), RedisLog(redis.url, lease=1.0)
    await first.claim_command(USER, "m1", b"x")
    await second.start()
    assert (await second.claim_command(USER, "m1", b"x")).state is ClaimState.ELSEWHERE
    await first.stop()
    async with asyncio.timeout(10):
        while (await second.claim_command(USER, "m1", b"x")).state is ClaimState.ELSEWHERE:
            await asyncio.sleep(0.05)
    await second.reclaim_command(USER, "m1")
    assert (await second.claim_command(USER, "m1", b"x")).state is ClaimState.HELD
    await second.stop()


async def test_what_was_seen_is_known_on_every_node(nodes: tuple[RedisLog, RedisLog]) -> None:
    """Who waits on one node is told of an acknowledgement on another."""
    first, second = nodes
    (place,) = await append(first, event(1))
    waiting = asyncio.create_task(first.wait_seen(USER, place, timeout=10))
    await asyncio.sleep(0.1)
    await second.note_seen(USER, place)
    assert await waiting
    assert await first.seen(USER) == place


async def test_tickets_are_shared(nodes: tuple[RedisLog, RedisLog]) -> None:
    """A value that one node keeps another takes, once."""
    first, second = nodes
    await first.put("ticket", b"\xff\x00v", 30.0)
    taken = await asyncio.gather(*(node.take("ticket") for node in (first, second) * 5))
    assert [value for value in taken if value] == [b"\xff\x00v"]


async def test_presence_is_known_on_every_node(nodes: tuple[RedisLog, RedisLog]) -> None:
    """A user is present while any node has a connection of theirs."""
    first, second = nodes
    assert not await second.nodes.is_present("user_1")
    first.nodes.arrived("user_1")
    first.nodes.arrived("user_1")

    async def told(*, is_present: bool) -> None:
        async with asyncio.timeout(5):
            while await second.nodes.is_present("user_1") is not is_present:
                await asyncio.sleep(0.01)

    await told(is_present=True)
    first.nodes.left("user_1")
    assert await second.nodes.is_present("user_1")
    first.nodes.left("user_1")
    await told(is_present=False)


class Echo:
    """Answers with its name."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def answer(self, question: bytes) -> bytes:
        return question + self.name


async def test_a_question_reaches_all_nodes(nodes: tuple[RedisLog, RedisLog]) -> None:
    """Each node answers; one that is silent is left out after the timeout."""
    first, second = nodes
    echoes = Echo(b"1"), Echo(b"2")
    first.nodes.answerers.add(echoes[0])
    second.nodes.answerers.add(echoes[1])
    assert await first.nodes.ask(b"?") == [b"?1", b"?2"]
    assert await second.nodes.ask(b"?") == [b"?2", b"?1"]
    assert first._listener is not None
    first._listener.close()
    assert await second.nodes.ask(b"?", timeout=0.2) == [b"?2"]


# What a store may lose


async def test_a_store_that_lost_all_begins_again(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """FLUSHALL: the next events are of another term, and every reader is told by a gap."""
    first, second = nodes
    followers = [await Follower.of(node) for node in nodes]
    before = await append(first, *(event(n) for n in range(10)))
    for follower in followers:
        await follower.reach(10)
    redis.flush()
    (after,) = await append(second, event("after"))
    assert after.seq == 1
    assert after.epoch != before[0].epoch
    for follower in followers:
        async with asyncio.timeout(10):
            while not follower.gaps:
                await follower.catch_up()
                await asyncio.sleep(0.01)
        assert follower.gaps[0].reason == "epoch"
        assert follower.gaps[0].resumes_at == after
        assert follower.place == after


async def test_a_loss_is_told_without_another_event(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """Who was shown more than the store has is told as soon as heads are compared."""
    first, second = nodes
    follower = await Follower.of(second)
    await append(first, *(event(n) for n in range(5)))
    names = first.stream(USER).names
    with redis.client() as client:
        before = {name: client.dump(name) for name in (names.meta, names.stream)}
        (last, *_) = reversed(await append(first, *(event(n) for n in range(5, 10))))
        await follower.reach(10)
        for name, dumped in before.items():
            client.restore(name, 0, dumped, replace=True)
        client.client_kill_filter(_type="pubsub")
    async with asyncio.timeout(10):
        while not follower.gaps:
            await follower.catch_up()
            await asyncio.sleep(0.01)
    (gap,) = follower.gaps
    assert (gap.reason, gap.after, gap.resumes_at.seq) == ("future", last, 6)
    assert gap.resumes_at.epoch != last.epoch
    assert (await append(first, event("after")))[0] == gap.resumes_at


async def test_an_evicted_stream_is_a_gap(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """Where the store dropped events on its own account a reader is told, and numbers go on."""
    first, _ = nodes
    places = await append(first, *(event(n) for n in range(10)))
    with redis.client() as client:
        client.delete(first.stream(USER).names.stream)
    page = await first.read(USER, places[3])
    assert page.gap is not None
    assert (page.gap.reason, page.gap.resumes_at.seq) == ("retention", 11)
    (after,) = await append(first, event("after"))
    assert after == Position(places[0].epoch, 11)
    page = await first.read(USER, places[3])
    assert numbers(page.records) == ["after"]


async def test_an_evicted_meta_is_a_new_term(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """Without its meta a log goes on after what its stream holds, in another term."""
    first, _ = nodes
    places = await append(first, *(event(n) for n in range(10)))
    with redis.client() as client:
        client.delete(first.stream(USER).names.meta)
    (after,) = await append(first, event("after"))
    assert after.seq == 11
    assert after.epoch != places[0].epoch
    page = await first.read(USER, places[3])
    assert page.gap is not None
    assert page.gap.reason == "epoch"


# A server of the test's own


@pytest.fixture
def own(tmp_path: Path) -> RedisServer:
    """A server that the test may stop; not started."""
    return RedisServer(tmp_path / "redis")


async def test_a_restart_without_persistence_is_told(own: RedisServer) -> None:
    """A server that comes back empty: events go on, in another term, and readers get a gap."""
    with own:
        log = RedisLog(own.url)
        follower = await Follower.of(log)
        before = await append(log, *(event(n) for n in range(10)))
        await follower.reach(10)
        own.kill()
        waiting = [log.append(log.stream(USER), event(n)) for n in range(10, 20)]
        await asyncio.sleep(0.3)
        assert log.problem() is not None
        own.start()
        after = [await receipt for receipt in waiting]
        assert [place.seq for place in after] == list(range(1, 11))
        assert {place.epoch for place in after} != {before[0].epoch}
        async with asyncio.timeout(10):
            while follower.place != after[-1]:
                with suppress(LogUnavailable):
                    await follower.catch_up()
                await asyncio.sleep(0.01)
        assert [gap.reason for gap in follower.gaps] == ["epoch"]
        assert log.problem() is None
        await log.stop()


async def _restarted(own: RedisServer, url: str) -> tuple[list[Position], Position, Any]:
    log = RedisLog(url)
    before = await append(log, *(event(n) for n in range(10)))
    own.kill()
    own.start()
    (after,) = await append(log, event("after"))
    page = await log.read(USER, before[4])
    end = await log.read(USER, before[9])
    assert numbers(page.records)[:5] == [5, 6, 7, 8, 9]
    await log.stop()
    return before, after, end.gap


async def test_a_restart_with_persistence_is_a_new_term(tmp_path: Path) -> None:
    """What was written on another process may lack its end: the numbering begins a new term."""
    own = RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always")
    with own:
        before, after, gap = await _restarted(own, own.url)
    assert after.seq == 11
    assert after.epoch != before[0].epoch
    assert gap.reason == "epoch"


async def test_a_restart_may_be_trusted(tmp_path: Path) -> None:
    """``trust_restart=1``: AOF always on one primary keeps the term over a restart."""
    own = RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always")
    with own:
        before, after, gap = await _restarted(own, f"{own.url}?trust_restart=1")
    assert after == Position(before[0].epoch, 11)
    assert gap is None


async def test_a_store_that_stands_still_loses_nothing(own: RedisServer) -> None:
    """Frozen for longer than the timeout: everything is committed once, in order."""
    with own:
        log = RedisLog(own.url)
        follower = await Follower.of(log)
        await append(log, event(0))
        own.freeze()
        given = []
        for n in range(1, 60):
            given.append(log.append(log.stream(USER), event(n)))
            await asyncio.sleep(0.1)
        own.thaw()
        places = [(await receipt).seq for receipt in given]
        assert places == list(range(2, 61))
        await follower.reach(60)
        assert numbers(await all_records(log)) == list(range(60))
        assert follower.gaps == []
        await log.stop()


async def test_a_lost_answer_does_not_double(own: RedisServer) -> None:
    """Connections that are cut at random bytes both ways: each event is there once, in order."""
    seed = "20261125"
    print(f"seed {seed}")
    with own:
        faults = Faults(cut=1.0, cut_within_bytes=150_000)
        async with ChaosProxy(own.port, faults=faults, seed=seed) as network:
            log = RedisLog(f"redis://127.0.0.1:{network.port}/0")
            stream = log.stream(USER)
            given = []
            for n in range(4000):
                given.append(log.append(stream, event(n, size=200)))
                if n % 100 == 99:
                    # What waits must fit through before the next cut.
                    await given[-50]
            for receipt in given:
                await receipt
            assert network.journal.count(Incident.CUT, Incident.RESET) > 5
            network.apply(CALM)
            assert numbers(await all_records(log)) == list(range(4000))
            assert [(await receipt).seq for receipt in given] == list(range(1, 4001))
            await log.stop()


# What it refuses


async def test_an_evicting_policy_is_refused(tmp_path: Path) -> None:
    """A server that may drop keys when it is full is no log."""
    options = ("--maxmemory-policy", "allkeys-lru")
    with (
        RedisServer(tmp_path / "redis", *options) as own,
        pytest.raises(ConfigError, match="noeviction"),
    ):
        await RedisLog(own.url).start()


@pytest.mark.parametrize(
    ("options", "durability"),
    [
        ((), Durability.MEMORY),
        (("--appendonly", "yes"), Durability.PROCESS),
        (("--appendonly", "yes", "--appendfsync", "always"), Durability.POWER),
    ],
)
async def test_the_durability_in_force_is_the_server_s(
    tmp_path: Path, options: tuple[str, ...], durability: Durability
) -> None:
    """It is read from the server; less than was asked for is refused."""
    with RedisServer(tmp_path / "redis", *options) as own:
        log = RedisLog(own.url)
        await log.start()
        assert log.durability is durability
        await log.stop()
        for asked in (Durability.PROCESS, Durability.POWER):
            log = RedisLog(f"{own.url}?durability={asked}")
            if durability.is_below(asked):
                with pytest.raises(ConfigError, match="appendonly"):
                    await log.start()
            else:
                await log.start()
                await log.stop()


async def test_where_config_is_forbidden_durability_is_unknown(tmp_path: Path) -> None:
    """Hosted servers forbid CONFIG: then the lowest counts, and a minimum is refused."""
    options = ("--appendonly", "yes", "--rename-command", "CONFIG", "")
    with RedisServer(tmp_path / "redis", *options) as own:
        log = RedisLog(own.url)
        await log.start()
        assert log.durability is Durability.MEMORY
        assert "unknown" in log.survives
        await log.stop()
        with pytest.raises(ConfigError, match="unknown"):
            await RedisLog(f"{own.url}?durability=process").start()


async def test_a_wrong_password_is_said_at_once(tmp_path: Path) -> None:
    """What waiting cannot mend is an error of the configuration, without the password in it."""
    with RedisServer(tmp_path / "redis") as own:
        with own.client() as client:
            client.config_set("requirepass", "secret")
        with pytest.raises(ConfigError, match="password") as refused:
            await RedisLog(own.url.replace("//", "//:wrongword@")).start()
        assert "wrongword" not in str(refused.value)
        log = RedisLog(own.url.replace("//", "//:secret@"))
        assert (await append(log, event(1)))[0].seq == 1
        await log.stop()


async def test_a_server_that_is_away_is_said() -> None:
    """It may come: trying again later may help."""
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1"):
        await RedisLog("redis://127.0.0.1:1").start()

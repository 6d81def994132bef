"""What holds on every log that several processes share: one order, runs, claims, presence."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from catenary.errors import RunClosed, UsageError
from catenary.eventlog.model import CancelOutcome, ClaimState
from catenary.eventlog.shared.callers import THREADS
from catenary.events import AgentError
from catenary.record import Record
from catenary.wires.native import event_of
from tests.eventlog.conftest import OpenShared
from tests.eventlog.following import Follower, SharedLog, until
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

Nodes = tuple[SharedLog, SharedLog]


@pytest_asyncio.fixture
async def nodes(open_shared: OpenShared) -> AsyncIterator[Nodes]:
    """Two logs over one store, as two processes have them."""
    first, second = open_shared(lease=1.5), open_shared(lease=1.5)
    await first.start()
    await second.start()
    yield first, second
    await first.stop()
    await second.stop()


async def test_two_processes_write_one_log(nodes: Nodes) -> None:
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


async def test_reads_hold_up_neither_writing_nor_what_is_live(nodes: Nodes) -> None:
    """While all that read stand still on both nodes, events are committed, and shown on both."""
    gate = threading.Event()

    def stand_still(_: object) -> None:
        gate.wait(30)

    streams = [await node.watch(USER, Bell()) for node in nodes]
    await append(nodes[0], event(0))
    start = await nodes[1].locate(USER, "start")
    try:
        for node in nodes:
            assert node._callers is not None
            for _ in range(2 * THREADS):
                node._callers.run_later(stand_still)
        read = asyncio.ensure_future(nodes[1].read(USER, start))
        last = (await append(nodes[0], *(event(n) for n in range(1, 50))))[-1]
        for stream in streams:
            await until(lambda stream=stream: stream.position == last)  # type: ignore[misc]
        assert not read.done()
    finally:
        gate.set()
    assert len((await read).records) == 50


async def test_what_is_survived_is_said_at_the_start(
    open_shared: OpenShared, caplog: pytest.LogCaptureFixture
) -> None:
    """What a shared log's store promises is in the log of whoever opens it."""
    caplog.set_level("INFO", "catenary")
    log = open_shared()
    await log.start()
    assert f"{log.address.shown}: an event survives {log.survives}" in caplog.messages
    await log.stop()


async def test_live_events_reach_the_other_process_without_a_read(
    nodes: Nodes,
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


async def test_watching_again_while_the_channel_is_being_left(
    nodes: Nodes,
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
    nodes: Nodes,
) -> None:
    """The channel is heard before the head is read, so nothing falls between."""
    first, second = nodes
    assert first._listener is not None
    before = len(first._listener._wanted)
    for n in range(1, 200):
        bell = Bell()
        receipt = second.append(second.stream(USER), event(n))
        stream = await first.watch(USER, bell)
        await receipt
        await until(lambda stream=stream, n=n: stream.head == n, 3.0)  # type: ignore[misc]
        first.unwatch(stream, bell)
        await until(lambda: len(first._listener._wanted) == before)  # type: ignore[union-attr]


async def test_a_refused_key_may_be_used_again(nodes: Nodes) -> None:
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


async def test_an_idempotency_key_holds_on_every_node(nodes: Nodes) -> None:
    """A repeat on another node returns the first one's position; other content is an error."""
    first, second = nodes
    (place,) = await append(first, event(1, key="k"))
    assert await append(second, event(1, key="k")) == [place]
    with pytest.raises(UsageError, match="idempotency key"):
        await append(second, event(2, key="k"))
    assert numbers(await all_records(second)) == [1]


async def test_old_idempotency_keys_are_forgotten(nodes: Nodes) -> None:
    """At least the last 2,000 keys of a log are known; their number is bounded."""
    first, second = nodes
    for begin in range(0, 5000, 500):
        await append(first, *(event(n, key=f"k{n}") for n in range(begin, begin + 500)))
    (again,) = await append(second, event(3001, key="k3001"))
    assert again.seq == 3002
    assert (await append(second, event(0, key="k0")))[0].seq == 5001


async def test_a_batch_keeps_what_was_said_of_it(nodes: Nodes) -> None:
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


async def test_a_run_is_its_owners(nodes: Nodes) -> None:
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


async def test_a_lost_process_s_runs_are_closed_and_it_is_fenced(nodes: Nodes) -> None:
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


async def test_a_living_process_s_runs_stay(nodes: Nodes) -> None:
    """Leases that are renewed are not lost, however long nothing is said."""
    first, second = nodes
    await append(first, started())
    end = time.monotonic() + 4
    while time.monotonic() < end:
        await second.sweep()
        await asyncio.sleep(0.1)
    await append(first, delta("a"), completed())


async def test_nobody_judges_before_a_whole_lease(open_shared: OpenShared) -> None:
    """A process that has just come ends nobody's runs, though their lease is over."""
    first = open_shared(lease=1.0)
    await append(first, started())
    first._lease.is_due = lambda now: False  # type: ignore[method-assign]
    await asyncio.sleep(1.2)
    second = open_shared(lease=2.0)
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


async def test_a_run_is_cancelled_from_another_node(nodes: Nodes) -> None:
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


async def test_an_owner_that_missed_a_cancel_learns_with_its_next_append(nodes: Nodes) -> None:
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


async def test_a_run_is_taken_over_on_purpose(nodes: Nodes) -> None:
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


async def test_runs_over_http_go_on_on_any_node(nodes: Nodes) -> None:
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


async def test_a_run_is_closed_from_another_node(nodes: Nodes) -> None:
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


async def test_an_ended_run_is_reported_by_one_node(nodes: Nodes) -> None:
    """What one node took to report the other leaves alone, until it is marked."""
    first, second = nodes
    await append(first, started(), completed())
    assert [run.run_id for run in await first.unreported_runs(10)] == ["r1"]
    assert await second.unreported_runs(10) == []
    assert [run.run_id for run in await first.unreported_runs(10)] == ["r1"]
    await first.mark_reported(USER, "r1")
    assert await first.unreported_runs(10) == []


async def test_a_message_is_claimed_once_over_all_nodes(nodes: Nodes) -> None:
    """Of claims on both nodes one is new; the stored reply is everyone's."""
    claims = await asyncio.gather(*(node.claim_command(USER, "m1", b"x") for node in nodes * 5))
    assert sorted(claim.state.value for claim in claims) == [
        *["elsewhere"] * 5, *["held"] * 4, "new",
    ]  # fmt: skip
    await nodes[0].finish_command(USER, "m1", b"\x00reply\xff")
    for node in nodes:
        assert await node.claim_command(USER, "m1", b"x") == (ClaimState.DONE, b"\x00reply\xff")


async def test_a_message_of_a_lost_process_is_interrupted(open_shared: OpenShared) -> None:
    """Once its holder's lease is over a claim without a reply is interrupted."""
    first, second = open_shared(lease=1.0), open_shared(lease=1.0)
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


async def test_what_was_seen_is_known_on_every_node(nodes: Nodes) -> None:
    """Who waits on one node is told of an acknowledgement on another."""
    first, second = nodes
    (place,) = await append(first, event(1))
    waiting = asyncio.create_task(first.wait_seen(USER, place, timeout=10))
    await asyncio.sleep(0.1)
    await second.note_seen(USER, place)
    assert await waiting
    assert await first.seen(USER) == place


async def test_tickets_are_shared(nodes: Nodes) -> None:
    """A value that one node keeps another takes, once."""
    first, second = nodes
    await first.put("ticket", b"\xff\x00v", 30.0)
    taken = await asyncio.gather(*(node.take("ticket") for node in (first, second) * 5))
    assert [value for value in taken if value] == [b"\xff\x00v"]


async def test_presence_is_known_on_every_node(nodes: Nodes) -> None:
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
    """Answers with its name, and keeps what it hears of crowds."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.heard: list[tuple[str, int]] = []

    def answer(self, question: bytes) -> bytes:
        return question + self.name

    def crowded(self, user_id: str, connections: int) -> None:
        self.heard.append((user_id, connections))


async def test_connections_of_a_user_are_counted_over_all_nodes(nodes: Nodes) -> None:
    """One of those that got one more hears how many there are; one user's are not another's."""
    first, second = nodes
    echo = Echo(b"")
    first.nodes.answerers.add(echo)
    second.nodes.answerers.add(echo)
    first.nodes.arrived("user_1")
    async with asyncio.timeout(5):
        while not (await second.nodes.is_present("user_1")):
            await asyncio.sleep(0.01)

    async def heard(connections: int) -> None:
        async with asyncio.timeout(5):
            while ("user_1", connections) not in echo.heard:
                await asyncio.sleep(0.01)

    first.nodes.arrived("user_1")
    first.nodes.arrived("user_2")
    second.nodes.arrived("user_1")
    second.nodes.arrived("user_3")
    await heard(3)
    second.nodes.arrived("user_1")
    await heard(4)
    assert {user_id for user_id, _ in echo.heard} == {"user_1"}
    echo.heard.clear()
    first.nodes.left("user_1")
    await heard(3)


async def test_a_question_reaches_all_nodes(nodes: Nodes) -> None:
    """Each node answers; one that is silent is left out after the timeout."""
    first, second = nodes
    echoes = Echo(b"1"), Echo(b"2")
    first.nodes.answerers.add(echoes[0])
    second.nodes.answerers.add(echoes[1])
    # One that has just come may not hear yet.
    async with asyncio.timeout(20):
        while await first.nodes.ask(b"?") != [b"?1", b"?2"]:
            pass
        while await second.nodes.ask(b"?") != [b"?2", b"?1"]:
            pass
    assert first._listener is not None
    first._listener.close()
    assert await second.nodes.ask(b"?", timeout=0.2) == [b"?2"]


async def test_a_process_that_has_just_come_lives(open_shared: OpenShared) -> None:
    """Whoever judges others asks who lives now: a list of some seconds ago lacks the newest."""
    first, second = open_shared(lease=1.0), open_shared()
    await first.start()
    await until(lambda: first._lease.may_judge(time.monotonic()))
    first._lease.is_due = lambda now: False  # type: ignore[method-assign]
    await append(second, started())
    await second.claim_command(USER, "m1", b"x")
    assert (await first.claim_command(USER, "m1", b"x")).state is ClaimState.ELSEWHERE
    await first.sweep()
    await append(second, completed())
    assert [run.end_type for run in await first.runs(USER)] == ["agent_completed"]
    await first.stop()
    await second.stop()


async def test_a_repeat_after_the_run_has_ended_is_no_refusal(nodes: Nodes) -> None:
    """What was appended under its key returns its place, though its run takes nothing more."""
    first, second = nodes
    await append(first, started(lease=30.0))
    for node in (second, first):
        await node.adopt_runs(USER, ["r1"], [])
    entries = [delta("a"), completed()]
    for entry in entries:
        entry.key, entry.digest = entry.type, b"x"
    places = [await receipt for receipt in first.append_all(first.stream(USER), entries)]
    again = [delta("a"), completed()]
    for entry in again:
        entry.key, entry.digest = entry.type, b"x"
    given = second.append_all(second.stream(USER), again)
    assert [await receipt for receipt in given] == places
    assert len(await all_records(second)) == 3

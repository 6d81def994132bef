"""What logs of several processes share: streams, leases, questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catenary.eventlog.shared.leases import Lease
from catenary.eventlog.shared.nodes import SharedNodes
from catenary.eventlog.shared.stream import SharedStream
from catenary.record import Record
from catenary.wires.native import event_frame
from tests.eventlog.support import Bell, event


def record(seq: int, epoch: str = "e1") -> Record:
    return event(seq).to_record(epoch, seq, 1000)


class Shown:
    """A reader of a tail that goes to a store of all records where it must."""

    def __init__(self, stream: SharedStream, stored: dict[int, Record]) -> None:
        self.stream = stream
        self.stored = stored
        self.reached = 0
        self.frames: list[bytes] = []
        self.reads = 0

    def look(self) -> None:
        """Take what the tail has, and from the store what it has not."""
        tail = self.stream.tail
        assert tail is not None
        while True:
            taken = tail.after(self.reached, 10**9, None)
            if taken is not None:
                self.frames += taken[0]
                self.reached = taken[1]
                return
            self.reads += 1
            while self.reached + 1 < tail.first:
                self.reached += 1
                self.frames.append(event_frame(self.stored[self.reached]))


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[str, int]]:
    """
    Commits of this process and of others, as they may come to know here.

    Each event has a number and an owner. The live channel brings all of them in
    order, but may lose some; answers to own commits come in their order, at any
    time relative to the channel.
    """
    count = draw(st.integers(1, 30))
    own = [seq for seq in range(1, count + 1) if draw(st.booleans())]
    heard = [seq for seq in range(1, count + 1) if draw(st.integers(0, 9)) > 0]
    order: list[tuple[str, int]] = []
    ways = {"own": own, "heard": heard}
    while any(ways.values()):
        way = draw(st.sampled_from([name for name, left in ways.items() if left]))
        order.append((way, ways[way].pop(0)))
    return order


@settings(max_examples=300, deadline=None, derandomize=True)
@given(arrivals())
def test_every_record_is_shown_once_in_order(order: list[tuple[str, int]]) -> None:
    """However answers and live events interleave, a reader gets each number once."""
    stream = SharedStream("user_123")
    stream.settle("e1", 0)
    bell = Bell()
    stream.add_watcher(bell)
    last = max((seq for _, seq in order), default=1)
    stored = {seq: record(seq) for seq in range(1, last + 1)}
    reader = Shown(stream, stored)
    for way, seq in order:
        if way == "own":
            stream.publish(stored[seq])
        else:
            stream.hear([stored[seq]])
        reader.look()
    # What was lost is made up for by comparing heads.
    stream.settle("e1", last)
    reader.look()
    assert reader.frames == [event_frame(stored[seq]) for seq in range(1, last + 1)]


def test_own_commits_in_order_need_no_store() -> None:
    """Without others a reader lives from the tail alone."""
    stream = SharedStream("user_123")
    stream.settle("e1", 0)
    stream.add_watcher(Bell())
    reader = Shown(stream, {})
    for seq in range(1, 50):
        stream.publish(record(seq))
        stream.hear([record(seq)])
        reader.look()
    assert reader.reads == 0
    assert len(reader.frames) == 49


def test_a_new_term_drops_the_tail_and_wakes() -> None:
    """The first record of another term, however it comes, sends readers to the log."""
    ways: list[Callable[[SharedStream], None]] = [
        lambda stream: stream.publish(record(6, "e2")),
        lambda stream: stream.hear([record(6, "e2")]),
        lambda stream: stream.settle("e2", 5),
    ]
    for tell in ways:
        stream = SharedStream("user_123")
        stream.settle("e1", 5)
        bell = Bell()
        stream.add_watcher(bell)
        tell(stream)
        assert bell.is_awake
        assert stream.epoch == "e2"
        assert stream.tail is not None
        assert stream.tail.first == 6


def test_what_is_told_late_of_a_former_term_is_ignored() -> None:
    """A message of an ended term does not bring it back."""
    stream = SharedStream("user_123")
    stream.settle("e1", 5)
    stream.settle("e2", 5)
    stream.publish(record(6, "e2"))
    stream.hear([record(6, "e1")])
    stream.publish(record(7, "e1"))
    stream.settle("e1", 9)
    assert stream.position == ("e2", 6)


def test_a_lease_is_judged_only_after_a_whole_one() -> None:
    """After an interruption a process sees others' leases anew."""
    lease = Lease(15.0)
    assert lease.is_due(0.0)
    lease.renewed(0.0)
    assert not lease.is_due(4.9)
    assert lease.is_due(5.0)
    for now in (5.0, 10.0, 15.0):
        lease.renewed(now)
    assert not lease.may_judge(15.0)
    assert lease.may_judge(15.1)
    lease.interrupted()
    assert lease.is_due(15.2)
    assert not lease.may_judge(100.0)
    lease.renewed(16.0)
    assert not lease.may_judge(31.0)
    assert lease.may_judge(31.1)
    # It was away for longer than its own lease, though nothing said so.
    lease.renewed(50.0)
    assert not lease.may_judge(60.0)


class Wired(SharedNodes):
    """Nodes on one wire, some of which may be deaf."""

    def __init__(self, name: str, wire: dict[str, Wired]) -> None:
        super().__init__(name)
        self.wire = wire
        wire[name] = self

    async def _others(self) -> Collection[str]:
        return [name for name in self.wire if name != self.node]

    async def _tell_all(self, message: bytes) -> None:
        for node in self.wire.values():
            node.hear(message)

    def _tell(self, node: str, message: bytes) -> None:
        self.wire[node].hear(message)

    def refresh(self) -> None:
        """Nobody forgets on a wire."""


class Parrot:
    """Repeats the question."""

    def answer(self, question: bytes) -> bytes:
        return question

    def crowded(self, user_id: str, connections: int) -> None:
        """Parrots do not count."""


async def test_each_node_answers_once_and_strangers_do_not_count() -> None:
    """Answers are matched to their question; a second one of a node is ignored."""
    wire: dict[str, Wired] = {}
    nodes = [Wired(name, wire) for name in ("a", "b", "c")]
    parrot = Parrot()
    for node in nodes:
        node.answerers.add(parrot)
    found = await asyncio.gather(*(node.ask(node.node.encode()) for node in nodes))
    assert found == [[b"a"] * 3, [b"b"] * 3, [b"c"] * 3]


def test_presence_is_counted() -> None:
    """A user is here while one connection is; changes are given once, with how many there are."""
    nodes = Wired("a", {})
    nodes.arrived("u")
    nodes.arrived("u")
    nodes.arrived("v")
    assert nodes.take_changes() == ({"u": 2, "v": 1}, [])
    nodes.left("u")
    assert nodes.take_changes() == ({"u": 1}, [])
    nodes.left("u")
    assert nodes.take_changes() == ({}, ["u"])
    nodes.changed_again(["u", "v"])
    assert nodes.take_changes() == ({"v": 1}, ["u"])
    nodes.all_changed()
    assert nodes.take_changes() == ({"v": 1}, [])
    assert not nodes.is_here("u")


@pytest.mark.parametrize("times", [1, 3])
async def test_a_question_to_nobody_has_only_own_answers(times: int) -> None:
    """A node that is alone waits for nobody."""
    nodes = Wired("a", {})
    parrots = [Parrot() for _ in range(times)]
    for parrot in parrots:
        nodes.answerers.add(parrot)
    assert await nodes.ask(b"?") == [b"?"] * times

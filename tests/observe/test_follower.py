"""Frames of one connection, followed: what the wire promises, and what was planted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catenary.observe.follower import Fault, Follower
from catenary.position import Position
from catenary.wires.native import control_frame, text_frame

fixed = settings(derandomize=True, max_examples=300, deadline=None, database=None)


def event(seq: int, *, from_seq: int | None = None, epoch: str = "k3", **fields: Any) -> bytes:
    message = {"type": "app.note", "id": f"{epoch}:{seq}", "seq": seq, "from_seq": from_seq}
    known = {"user_id": "user_123", "thread_id": "t1", "timestamp": 1, "data": {"seq": "x"}}
    given = {**message, **known, **fields}
    return text_frame(msgspec.json.encode({k: v for k, v in given.items() if v is not None}))


def control(type: str, **fields: Any) -> bytes:
    return control_frame({"type": type, **fields})


def follower(**options: Any) -> Follower:
    chosen = {"user_id": "user_123", "thread_ids": None, **options}
    return Follower(Position("k3", 4), **chosen)


def faults(following: Follower, *frames: bytes) -> list[Fault]:
    findings = [following.follow(frame)[1] for frame in frames]
    return [finding.fault for finding in findings if finding is not None]


def test_what_the_wire_promises_has_no_finding() -> None:
    """Events one after another, merged ranges, true places, answers, and gaps that are told."""
    following = follower()
    gap = {"after": "k3:9", "resumes_at": "z9:5", "reason": "epoch"}
    frames = [
        event(5),
        event(8, from_seq=6),
        control("live", position="k3:8"),
        event(9),
        control("pong", id=17, timestamp=1),
        control("ack", id="m1", reply={"type": "x", "seq": 3}),
        control("heartbeat", position="k3:9", timestamp=1),
        control("gap", **gap),
        event(5, epoch="z9"),
        control("closing", reason="draining", reconnect_after=1.5),
    ]
    assert faults(following, *frames) == []
    assert following.place == Position("z9", 5)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([event(6)], [Fault.HOLE]),
        ([event(5), event(7), event(6), event(8)], [Fault.HOLE, Fault.SWAP]),
        ([event(5), event(5)], [Fault.DOUBLE]),
        ([event(5), event(6, from_seq=5)], [Fault.DOUBLE]),
        ([event(4)], [Fault.DOUBLE]),
        ([event(8, from_seq=7)], [Fault.HOLE]),
        ([event(5, epoch="z9")], [Fault.HOLE]),
        ([event(5, user_id="user_456"), event(6)], [Fault.FOREIGN]),
        ([event(99, epoch="z9", user_id="user_456"), event(5)], [Fault.FOREIGN]),
        ([event(5), control("live", position="k3:4")], [Fault.POSITION]),
        ([event(5), control("heartbeat", position="k3:6")], [Fault.POSITION]),
        ([control("heartbeat", position="z9:4")], [Fault.POSITION]),
        ([text_frame(b"{")], [Fault.UNREADABLE]),
        ([text_frame(b'"\xff"')], [Fault.UNREADABLE]),
        ([control("live", position="nonsense")], [Fault.UNREADABLE]),
        ([event(5, id="nonsense")], [Fault.UNREADABLE]),
    ],
)
def test_what_is_planted_is_found(frames: list[bytes], expected: list[Fault]) -> None:
    """Each by its name, once, and what follows is fine again."""
    assert faults(follower(), *frames) == expected


def test_a_finding_says_where() -> None:
    """The place before it, and what came."""
    _, finding = follower().follow(event(9))
    assert finding is not None
    assert finding.text == "from k3:4 to 9, and no gap between"


def test_events_of_a_shared_log_may_be_of_anyone() -> None:
    """Its log is granted to several users, and an event names whoever it is of."""
    assert faults(follower(user_id=None), event(5, user_id="user_456"), event(6)) == []


def test_on_a_filtered_connection_numbers_only_rise() -> None:
    """What is skipped is of other threads; one of these that comes is foreign."""
    following = follower(thread_ids={"t1"})
    assert faults(following, event(7), event(20, from_seq=9)) == []
    assert faults(following, control("heartbeat", position="k3:31")) == []
    assert faults(following, event(31), event(20)) == [Fault.DOUBLE, Fault.DOUBLE]
    assert faults(following, event(32, thread_id="t2"), event(33)) == [Fault.FOREIGN]
    assert faults(following, control("heartbeat", position="k3:20")) == [Fault.POSITION]


@fixed
@given(st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_any_cut_into_ranges_is_whole(sizes: list[int]) -> None:
    """However events are merged, each number once and in order is what was promised."""
    following, seq = follower(), 4
    for size in sizes:
        first, seq = seq + 1, seq + size
        frame = event(seq, from_seq=first if size > 1 else None)
        assert following.follow(frame)[1] is None
    assert following.place == Position("k3", 4 + sum(sizes))


@fixed
@given(
    st.integers(1, 30), st.integers(0, 29), st.sampled_from(["drop", "repeat", "swap"]), st.data()
)
def test_a_fault_anywhere_is_found(count: int, at: int, how: str, data: st.DataObject) -> None:
    """One event that is dropped, repeated or exchanged with the next, at any place."""
    seqs = list(range(5, 5 + count))
    at = min(at, count - 1)
    if how == "drop":
        del seqs[at]
    elif how == "repeat":
        seqs.insert(data.draw(st.integers(at + 1, count)), seqs[at])
    elif at + 1 < count:
        seqs[at], seqs[at + 1] = seqs[at + 1], seqs[at]
    found = faults(follower(), *map(event, seqs))
    if how == "drop":
        assert found == ([Fault.HOLE] if at < count - 1 else [])
    elif how == "repeat":
        assert found == [Fault.DOUBLE]
    elif at + 1 < count:
        assert found == [Fault.HOLE, Fault.SWAP]

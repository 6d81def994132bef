"""Threads that emit at once, and loads of a size."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from typing import Any

import pytest

from catenary import LogFull, Position, UsageError, WebSocketBridgeFactory
from catenary.errors import ValidationFailed
from catenary.eventlog.receipt import Receipt
from catenary.validate.crowd import SWITCH_SECONDS, Crowd, crowd, together
from catenary.validate.load import Load, LoadGenerator
from catenary.validate.patience import until


class Sink:
    """Takes what is emitted, and refuses some of it as a full log does."""

    def __init__(self, *, refuses: int = 0) -> None:
        self.data: list[tuple[str, Any]] = []
        self._refuses = refuses
        self._lock = threading.Lock()

    def __call__(self, user_id: str, data: Any) -> Receipt:
        with self._lock:
            if self._refuses:
                self._refuses -= 1
                raise LogFull(user_id, 1, 1, None)
            self.data.append((user_id, data))
        receipt = Receipt()
        receipt.commit("k3", len(self.data))
        return receipt


def generated(load: Load, sink: Sink) -> LoadGenerator:
    generator = LoadGenerator(load, sink)
    generator.start()
    generator.wait(10)
    return generator


@pytest.mark.parametrize("threads", [1, 3])
def test_every_user_gets_their_events_in_order(threads: int) -> None:
    users = [f"user_{number}" for number in range(7)]
    sink = Sink()
    generator = generated(Load(users=users, events=50, threads=threads, burst=4), sink)
    for user_id in users:
        own = [data["marker"] for owner, data in sink.data if owner == user_id]
        assert own == [f"{user_id} {number}" for number in range(50)]
    assert len(generator.emitted) == 350
    assert generator.emitted[0].receipt.result(1) == Position("k3", 1)


def test_a_full_log_is_tried_again_and_counted() -> None:
    sink = Sink(refuses=5)
    generator = generated(Load(users=["user_123"], events=10), sink)
    assert (len(sink.data), generator.refusals) == (10, 5)


def test_sizes_lie_between_their_bounds_and_come_from_the_seed() -> None:
    def sizes(seed: str) -> list[int]:
        sink = Sink()
        generated(Load(users=["user_123"], events=200, size_bytes=(10, 500), seed=seed), sink)
        return [len(data["pad"]) for _, data in sink.data]

    assert min(sizes("a")) >= 10
    assert 300 < max(sizes("a")) <= 500
    assert sizes("a") == sizes("a") != sizes("b")


def test_a_rate_is_kept_in_the_mean() -> None:
    """It does not emit faster, however fast it could."""
    generator = generated(Load(users=["user_123"], events=20, rate=100, burst=2), Sink())
    assert generator.seconds >= 0.19


def test_an_emit_that_raises_is_told() -> None:
    def emit(user_id: str, data: Any) -> Receipt:
        raise UsageError("not so")

    generator = LoadGenerator(Load(users=["user_123"], events=1), emit)
    generator.start()
    with pytest.raises(ValidationFailed, match="not so"):
        generator.wait(5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"users": []}, {"events": 0}, {"threads": 0}, {"burst": 0}, {"rate": 0.0},
        {"size_bytes": (5, 4)}, {"size_bytes": (-1, 4)},
    ],
)  # fmt: skip
def test_a_load_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Load(**{"users": ["user_123"], "events": 1, **wrong})


def test_a_crowd_works_at_once_each_with_its_number() -> None:
    inside: Counter[int] = Counter()
    barrier = threading.Barrier(20)

    def work(number: int) -> int:
        barrier.wait(10)  # nobody passes unless all are there
        inside[number] += 1
        return number * 2

    members = Crowd(20, work)
    members.run(10)
    assert members.results == {number: number * 2 for number in range(20)}
    assert set(inside.values()) == {1}


def test_a_crowd_takes_turns_often() -> None:
    """So often that its members meet in the middle of things; afterwards all is as before."""
    usual = sys.getswitchinterval()
    members = Crowd(3, lambda _: sys.getswitchinterval())
    members.run(10)
    assert set(members.results.values()) == {SWITCH_SECONDS}
    assert sys.getswitchinterval() == usual


async def test_coroutines_of_a_crowd_have_loops_of_their_own() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return id(asyncio.get_running_loop())

    here = id(asyncio.get_running_loop())
    members = await crowd(5, work)
    assert here not in members.results.values()


async def test_a_crowd_that_fails_or_hangs_is_told() -> None:
    def fail(number: int) -> None:
        raise ValueError(f"number {number}")

    with pytest.raises(ValidationFailed, match=r"3 threads failed; the first: ValueError"):
        await crowd(3, fail)
    release = threading.Event()
    with pytest.raises(ValidationFailed, match=r"2 threads did not end in 0.1 s: \['stuck-0'"):
        await crowd(2, lambda _: release.wait(10), timeout=0.1, name="stuck")
    release.set()


async def test_all_end_before_the_first_failure_is_raised() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0.01 * number)
        ended.append(number)
        if number == 0:
            raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        await together(work(number) for number in range(4))
    assert ended == [0, 1, 2, 3]


async def test_waiting_ends_with_a_text() -> None:
    with pytest.raises(ValidationFailed, match=r"the sky falls: not within 0.05 s"):
        await until(lambda: False, what="the sky falls", timeout=0.05)


def test_the_load_reaches_a_real_bridge() -> None:
    """Without a loop, into its log."""
    factory = WebSocketBridgeFactory("memory://?private")
    emitter = factory.get_user_emitter
    from catenary import UserWebSocketContext  # noqa: PLC0415

    made = emitter(UserWebSocketContext(user_id="user_123"))
    generator = LoadGenerator(
        Load(users=["user_123"], events=30, threads=1),
        lambda _, data: made.custom("app.note", data),
    )
    generator.start()
    generator.wait(5)
    assert [one.receipt.result(1).seq for one in generator.emitted] == list(range(1, 31))

from __future__ import annotations

from collections.abc import Callable

import pytest

from catenary.eventlog.tail import BYTES_LIMIT, FRAMES_LIMIT, Tail


def filled(count: int, thread: str | None = "t1") -> Tail:
    tail = Tail(1)
    for number in range(1, count + 1):
        tail.append(b"%d" % number, thread)
    return tail


class Meddling(frozenset[str]):
    """A filter that lets the writer's thread work each time it is asked."""

    meddle: Callable[[], None]

    def __contains__(self, thread: object) -> bool:
        self.meddle()
        return super().__contains__(thread)


def test_a_reader_gets_exactly_what_follows_its_place() -> None:
    """From any place inside, the rest in order; at the end nothing; before the first, None."""
    tail = filled(5)
    assert tail.after(0, 1000, None) == ([b"1", b"2", b"3", b"4", b"5"], 5)
    assert tail.after(3, 1000, None) == ([b"4", b"5"], 5)
    assert tail.after(5, 1000, None) == ([], 5)
    assert Tail(6).after(4, 1000, None) is None


def test_what_is_dropped_is_never_skipped() -> None:
    """Beyond its limits the tail forgets the oldest, and says so to whoever needs them."""
    tail = filled(FRAMES_LIMIT * 2)
    assert FRAMES_LIMIT <= tail.end - tail.first <= FRAMES_LIMIT * 5 // 4
    assert tail.after(tail.first - 2, 1000, None) is None
    got = tail.after(tail.first - 1, 1000, None)
    assert got is not None
    assert got[0][0] == b"%d" % tail.first


def test_the_bytes_held_stay_bounded() -> None:
    """Large frames drop the older ones; the count of bytes is that of the frames."""
    tail = Tail(1)
    for _ in range(20):
        tail.append(b"x" * (BYTES_LIMIT // 4), None)
    assert tail.bytes_held <= BYTES_LIMIT * 5 // 4
    assert tail.bytes_held == (tail.end - tail.first) * (BYTES_LIMIT // 4)


@pytest.mark.parametrize("threads", [None, {"t1"}])
def test_a_turn_never_exceeds_its_bytes_but_for_one_frame(threads: set[str] | None) -> None:
    """Frames that fit, and one alone where none does, filtered or not."""
    tail = Tail(1)
    for size in (10, 10, 50, 200, 10):
        tail.append(b"x" * size, "t1")
    sizes, place = [], 0
    while place < 5:
        got = tail.after(place, 64, threads)
        assert got is not None
        sizes.append([len(frame) for frame in got[0]])
        place = got[1]
    assert sizes == [[10, 10], [50], [200], [10]]


def test_a_filtered_reader_passes_what_is_not_its_own() -> None:
    """Its place moves over other threads' events also when it gets none."""
    tail = filled(3, "other")
    assert tail.after(0, 1000, {"t1"}) == ([], 3)


@pytest.mark.parametrize("change", ["append", "trim", "clear"])
def test_a_commit_while_a_filtered_reader_looks_loses_and_doubles_nothing(change: str) -> None:
    """Whatever another thread does to the tail meanwhile, the reader's frames follow its place."""
    tail = filled(10)
    filter_ = Meddling({"t1"})

    def meddle() -> None:
        if change == "clear":
            tail.clear()
        for _ in range(FRAMES_LIMIT if change == "trim" else 1):
            tail.append(b"%d" % tail.end, "t1")

    filter_.meddle = meddle
    got = tail.after(0, 1000, filter_)
    assert got is not None
    frames, reached = got
    assert frames == [b"%d" % number for number in range(1, reached + 1)]


def test_clearing_leaves_live_readers_live() -> None:
    """A reader at the end goes on with what comes next; one behind reads the log."""
    tail = filled(10)
    tail.clear()
    assert tail.after(10, 1000, None) == ([], 10)
    assert tail.after(9, 1000, None) is None
    tail.append(b"11", None)
    assert tail.after(10, 1000, None) == ([b"11"], 11)
    assert tail.bytes_held == 2

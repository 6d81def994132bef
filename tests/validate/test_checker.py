"""The checker finds what is planted, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from catenary.events import WebSocketEvent
from catenary.position import Position
from catenary.validate.checker import Fault, OrderingChecker

USER = "user_123"
HEAD = {USER: Position("k3", 5)}


def event(seq: int, marker: str | None = None, *, from_seq: int | None = None) -> WebSocketEvent:
    return WebSocketEvent(
        type="app.tick",
        id=f"k3:{seq}",
        seq=seq,
        from_seq=from_seq,
        data={"marker": marker or f"m{seq}"},
    )


def delta(seq: int, from_seq: int, *words: str) -> WebSocketEvent:
    data = {"message_id": "x", "delta": " ".join(words)}
    return WebSocketEvent(type="agent_delta", id=f"k3:{seq}", seq=seq, from_seq=from_seq, data=data)


def checked(
    events: Sequence[WebSocketEvent], *, acknowledged: Sequence[int] = range(1, 6)
) -> OrderingChecker:
    """A reader that received these, and producers that were told of m1 to m5."""
    checker = OrderingChecker()
    checker.begin("phone", USER, Position("k3", 0))
    for each in events:
        checker.received("phone", each, USER)
    for seq in acknowledged:
        checker.acknowledged(USER, Position("k3", seq), f"m{seq}")
    return checker


def faults(checker: OrderingChecker) -> set[Fault]:
    return {problem.fault for problem in checker.problems(HEAD)}


def ticks(*seqs: int) -> list[WebSocketEvent]:
    return [event(seq) for seq in seqs]


def test_what_is_whole_has_no_problem() -> None:
    """Every event, once, in order, to the end."""
    checker = checked(ticks(1, 2, 3, 4, 5))
    assert checker.problems(HEAD) == []
    assert checker.events_received == 5


@pytest.mark.parametrize(
    ("seqs", "expected"),
    [
        ((1, 2, 4, 5), {Fault.HOLE, Fault.LOST}),
        ((2, 3, 4, 5), {Fault.HOLE, Fault.LOST}),
        ((1, 2, 3, 3, 4, 5), {Fault.DOUBLE}),
        ((1, 2, 3, 4, 5, 1), {Fault.DOUBLE}),
        ((1, 3, 2, 4, 5), {Fault.SWAP}),
        ((1, 2, 3, 4), {Fault.BEHIND, Fault.LOST}),
        ((), {Fault.BEHIND, Fault.LOST}),
    ],
    ids=["hole", "no beginning", "double", "double at the end", "swap", "behind", "nothing"],
)
def test_a_planted_fault_is_found(seqs: tuple[int, ...], expected: set[Fault]) -> None:
    """A gap, a double and a swap are told apart, wherever they are."""
    assert faults(checked(ticks(*seqs))) == expected


def test_an_event_of_another_log_is_found() -> None:
    """Whose log an event is of is compared, not only its number."""
    checker = checked(ticks(1, 2, 3, 4, 5))
    checker.received("phone", event(6), "user_456")
    assert faults(checker) == {Fault.FOREIGN}


def test_merged_events_count_by_their_range() -> None:
    """A merged delta stands for every event of its range, with the words of each."""
    checker = checked([event(1), delta(4, 2, "m2", "m3", "m4"), event(5)])
    assert checker.problems(HEAD) == []


@pytest.mark.parametrize(
    ("merged", "fault"),
    [
        (delta(4, 3, "m3", "m4"), Fault.HOLE),
        (delta(4, 1, "m1", "m2", "m3", "m4"), Fault.DOUBLE),
        (delta(4, 2, "m2", "m4"), Fault.CHANGED),
    ],
    ids=["begins late", "begins early", "lacks a word"],
)
def test_a_wrong_range_is_found(merged: WebSocketEvent, fault: Fault) -> None:
    """A range that does not fit what came before, or lacks a piece, is no whole one."""
    assert fault in faults(checked([event(1), merged, event(5)]))


def test_the_latest_of_a_key_stands_for_the_others() -> None:
    """Of progress that was superseded nothing is said but that it was there."""
    checker = checked([event(1), event(4, from_seq=2), event(5)])
    assert checker.problems(HEAD) == []


def test_a_gap_that_is_told_is_no_hole_and_what_it_lost_is_lost() -> None:
    """It is reported as told; acknowledged events within it are still lost ones."""
    checker = checked(ticks(1), acknowledged=(1, 4, 5))
    checker.gap("phone", Position("k3", 1), Position("k3", 4))
    for each in ticks(4, 5):
        checker.received("phone", each, USER)
    assert faults(checker) == {Fault.TOLD_LOSS}
    checker.acknowledged(USER, Position("k3", 2), "m2")
    assert faults(checker) == {Fault.TOLD_LOSS, Fault.LOST}


def test_an_epoch_that_changes_without_a_gap_is_found() -> None:
    """Numbers of two terms do not follow on each other."""
    checker = checked(ticks(1, 2, 3, 4, 5))
    checker.received("phone", WebSocketEvent(type="app.tick", id="k4:6", seq=6), USER)
    assert Fault.HOLE in {problem.fault for problem in checker.problems()}


def test_another_content_than_was_acknowledged_is_found() -> None:
    """A number that was given to one event and shows another is caught."""
    assert faults(checked([*ticks(1, 2), event(3, "other"), *ticks(4, 5)])) == {Fault.CHANGED}


def test_content_that_stands_in_the_log_twice_is_found() -> None:
    """What was retried after a lost answer may be there once."""
    checker = checked([*ticks(1, 2, 3, 4), event(5, "m4")], acknowledged=(1, 2, 3, 4))
    assert faults(checker) == {Fault.REPEATED}


def test_readers_of_one_log_must_see_the_same() -> None:
    """One order for all: two readers are compared place by place."""
    checker = checked(ticks(1, 2, 3, 4, 5))
    checker.begin("laptop", USER, Position("k3", 0))
    for each in (*ticks(1, 2), event(3, "mine"), *ticks(4, 5)):
        checker.received("laptop", each, USER)
    assert faults(checker) == {Fault.CHANGED}


def test_a_reader_answers_for_what_came_after_its_beginning_only() -> None:
    """Who begins late has lost nothing."""
    checker = checked(ticks(1, 2, 3, 4, 5))
    checker.begin("laptop", USER, Position("k3", 3))
    for each in ticks(4, 5):
        checker.received("laptop", each, USER)
    assert checker.problems(HEAD) == []


def in_thread(seq: int, thread_id: str) -> WebSocketEvent:
    return WebSocketEvent(
        type="app.tick", id=f"k3:{seq}", seq=seq, thread_id=thread_id, data={"marker": f"m{seq}"}
    )


def filtered(*events: WebSocketEvent) -> OrderingChecker:
    """A reader of thread t1, and producers that were told of 1 and 3 there and of 2 in t2."""
    checker = OrderingChecker()
    checker.begin("phone", USER, Position("k3", 0), thread_ids={"t1"})
    for each in events:
        checker.received("phone", each, USER)
    for seq, thread_id in ((1, "t1"), (2, "t2"), (3, "t1")):
        checker.acknowledged(USER, Position("k3", seq), f"m{seq}", thread_id=thread_id)
    return checker


def test_a_filtered_reader_must_get_its_threads_and_no_other() -> None:
    """What lies between is no hole; what is missing, foreign or out of order is found."""
    first, other, last = in_thread(1, "t1"), in_thread(2, "t2"), in_thread(3, "t1")
    assert filtered(first, last).problems(HEAD) == []
    assert faults(filtered(first)) == {Fault.LOST}
    assert faults(filtered(first, other, last)) == {Fault.FOREIGN}
    assert faults(filtered(last, first)) == {Fault.SWAP}


def test_what_was_erased_may_differ() -> None:
    """A tombstone stands for whatever was acknowledged there, or came to others."""
    erased = WebSocketEvent(type="erased", id="k3:3", seq=3, data={"thread_id": "t1"})
    checker = checked([*ticks(1, 2), erased, *ticks(4, 5)])
    checker.begin("laptop", USER, Position("k3", 0))
    for each in ticks(1, 2, 3, 4, 5):
        checker.received("laptop", each, USER)
    assert checker.problems(HEAD) == []


def test_a_problem_says_where_it_is() -> None:
    """So that a judge who knows what a log may lose can excuse it."""
    problems = checked(ticks(1, 2, 4, 5)).problems(HEAD)
    assert {problem.place for problem in problems} == {Position("k3", 3)}


def test_a_problem_reads_as_a_sentence() -> None:
    """Whoever reads a report sees what, where and which place."""
    problem = checked(ticks(1, 2, 4, 5)).problems()[0]
    assert str(problem) == "hole at phone: 1 missing, the first is k3:3"


_MUTATIONS: dict[str, Callable[[list[WebSocketEvent]], list[WebSocketEvent]]] = {
    "drop": lambda events: events[:2] + events[3:],
    "double": lambda events: [*events[:3], events[2], *events[3:]],
    "swap": lambda events: [*events[:2], events[3], events[2], *events[4:]],
    "reverse": lambda events: events[::-1],
    "truncate": lambda events: events[:-1],
}


@pytest.mark.parametrize("mutation", _MUTATIONS.values(), ids=_MUTATIONS)
def test_no_mutation_of_a_whole_stream_passes(
    mutation: Callable[[list[WebSocketEvent]], list[WebSocketEvent]],
) -> None:
    """Whatever is done to a whole stream, something is said."""
    assert checked(mutation(ticks(1, 2, 3, 4, 5))).problems(HEAD)

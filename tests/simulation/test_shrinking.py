"""A failing schedule is made short, and fails as before."""

from __future__ import annotations

from tests.simulation.drawing import draw
from tests.simulation.schedule import (
    AnyOperation,
    Connect,
    Cut,
    Emit,
    Retain,
    Schedule,
    Setup,
    Wait,
    What,
)
from tests.simulation.shrinking import Shrinker


def with_fault(schedule: Schedule) -> bool:
    """A made-up fault: a large event, and some time afterwards a cut of the same reader."""
    operations = schedule.operations
    return schedule.setup.retain is not Retain.ALL and any(
        isinstance(first, Emit)
        and first.what >= What.BIG_NOTE
        and isinstance(later, Cut)
        and later.kept >= 2
        for index, first in enumerate(operations)
        for later in operations[index + 1 :]
    )


def failing() -> Schedule:
    """A long schedule with that fault in it."""
    for number in range(1000):
        schedule = draw(number)
        if len(schedule.operations) > 25 and with_fault(schedule):
            return schedule
    raise AssertionError("no schedule has it")


def test_what_does_not_matter_is_left_out_and_what_does_is_as_small_as_can_be() -> None:
    """Two operations of many stay, with the least numbers that will do."""
    short = Shrinker(with_fault).shrink(failing())
    assert short == Schedule(
        Setup(retain=Retain.FEW), [Emit(what=What.BIG_NOTE, count=0), Cut(kept=2)]
    )


def test_what_holds_no_more_is_not_taken() -> None:
    """Whatever is tried, the answer fails as the first did."""
    operations: list[AnyOperation] = [Connect(), Wait(how_long=3, stir=200), Connect(reader=2)]
    schedule = Schedule(Setup(slow_log=3), operations)
    assert Shrinker(lambda tried: tried == schedule).shrink(schedule) == schedule


def test_it_ends_when_it_has_tried_enough() -> None:
    """A bound on the attempts holds, and the best so far is the answer."""
    attempts: list[Schedule] = []

    def holds(schedule: Schedule) -> bool:
        attempts.append(schedule)
        return with_fault(schedule)

    short = Shrinker(holds, attempts=10).shrink(failing())
    assert len(attempts) == 10
    assert with_fault(short)

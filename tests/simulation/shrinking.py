"""Making a failing schedule short: what can be left out, and what can be smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from tests.simulation.schedule import Schedule

ATTEMPTS = 1500

S = TypeVar("S", bound=msgspec.Struct)


class Shrinker:
    """
    Looks for a shorter schedule for which something still holds.

    Pieces of the list are left out, the larger before the smaller, then
    numbers are made smaller; again and again until nothing more can be taken
    away, or ``attempts`` are used up.
    """

    def __init__(self, holds: Callable[[Schedule], bool], attempts: int = ATTEMPTS) -> None:
        self._asked = holds
        self._left = attempts

    def shrink(self, schedule: Schedule) -> Schedule:
        """Return the smallest that was found."""
        while True:
            smaller = self._simplified(self._shortened(schedule))
            if smaller == schedule or self._left <= 0:
                return smaller
            schedule = smaller

    def _holds(self, schedule: Schedule) -> bool:
        self._left -= 1
        return self._left >= 0 and self._asked(schedule)

    def _shortened(self, schedule: Schedule) -> Schedule:
        size = max(1, len(schedule.operations) // 2)
        while size:
            end = len(schedule.operations)
            while end > 0:
                begin = max(0, end - size)
                kept = [*schedule.operations[:begin], *schedule.operations[end:]]
                tried = Schedule(schedule.setup, kept)
                if self._holds(tried):
                    schedule = tried
                end = begin
            size //= 2
        return schedule

    def _simplified(self, schedule: Schedule) -> Schedule:
        setup, operations = schedule.setup, [*schedule.operations]
        setup = self._minimised(setup, lambda smaller: Schedule(smaller, operations))
        for index, operation in enumerate(operations):
            before, after = operations[:index], operations[index + 1 :]
            operations[index] = self._minimised(
                operation,
                lambda smaller, before=before, after=after: Schedule(  # type: ignore[misc]
                    setup, [*before, smaller, *after]
                ),
            )
        return Schedule(setup, operations)

    def _minimised(self, value: S, within: Callable[[S], Schedule]) -> S:
        """Return a value with smaller numbers, for which it still holds."""
        for field in value.__struct_fields__:
            for smaller in _below(value, field):
                if self._holds(within(smaller)):
                    value = smaller
                    break
        return value


def _below(value: S, field: str) -> Iterator[S]:
    """Yield copies with less in a field, the least first."""
    number = getattr(value, field)
    for less in sorted({0, number // 2, number - 1} - {number}):
        if less >= 0:
            yield msgspec.structs.replace(value, **{field: type(number)(less)})

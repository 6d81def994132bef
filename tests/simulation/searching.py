"""Looking for a schedule that fails, and telling of it in a way that replays it."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import NamedTuple

from tests.simulation.course import verdict_on
from tests.simulation.drawing import draw
from tests.simulation.judge import Problem
from tests.simulation.schedule import Schedule
from tests.simulation.shrinking import Shrinker

TEST = "tests/simulation/test_schedules.py"
COLLECT_EVERY = 50


class Found(NamedTuple):
    """A schedule that fails: as it was drawn, and as short as it could be made."""

    number: int
    tried: int
    drawn: Schedule
    schedule: Schedule
    problems: list[Problem]

    def __str__(self) -> str:
        shown = "\n".join(f"  {line}" for line in str(self.schedule).splitlines())
        problems = "\n".join(f"  {problem}" for problem in self.problems[:10])
        return (
            f"schedule {self.number} fails; made short it is\n{shown}\n"
            f"what does not hold:\n{problems}\n"
            f"replay it:  CATENARY_SCHEDULE={self.schedule.token} pytest {TEST}\n"
            f"see it:     python -m tests.simulation {self.schedule.token}"
        )


def search(numbers: Iterable[int]) -> Found | None:
    """Run the schedules of these numbers; return the first that fails, made short."""
    for tried, number in enumerate(numbers, 1):
        schedule = draw(number)
        problems = verdict_on(schedule)
        if problems:
            return _shortened(number, tried, schedule, problems)
        if tried % COLLECT_EVERY == 0:
            gc.collect()
    return None


def _shortened(number: int, tried: int, drawn: Schedule, problems: list[Problem]) -> Found:
    kind = problems[0].kind

    def fails_alike(schedule: Schedule) -> bool:
        return any(problem.kind == kind for problem in verdict_on(schedule))

    schedule = Shrinker(fails_alike).shrink(drawn)
    return Found(number, tried, drawn, schedule, verdict_on(schedule))

"""
Thousands of schedules in simulated worlds: none breaks a guarantee.

``CATENARY_SCHEDULE=TOKEN`` replays one schedule instead of all;
``CATENARY_SCHEDULES=20000`` or ``=20000-30000`` runs others, or more of them.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from tests.simulation.course import verdict_on
from tests.simulation.schedule import Schedule
from tests.simulation.searching import search

USUAL = "2000"
FEW = 150
PART = 500


def asked_for() -> range:
    """Return the numbers of the schedules that are to run."""
    first, _, end = os.environ.get("CATENARY_SCHEDULES", USUAL).rpartition("-")
    return range(int(first or 0), int(end))


def parts() -> list[range]:
    """Return them in parts, so that a failure says in which it was."""
    numbers = asked_for()
    begins = range(numbers.start, numbers.stop, PART)
    return [range(begin, min(begin + PART, numbers.stop)) for begin in begins]


TOKEN = os.environ.get("CATENARY_SCHEDULE", "")


@pytest.fixture(scope="module", autouse=True)
def _settled() -> Iterator[None]:
    """What is there before the first world need not be looked at after each."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


if TOKEN:

    @pytest.mark.timeout(120)
    def test_the_schedule_of_the_token() -> None:
        """What failed once and was given as a token holds now."""
        schedule = Schedule.from_token(TOKEN)
        problems = verdict_on(schedule)
        assert not problems, "\n".join([str(schedule), *map(str, problems)])

else:

    def test_few_schedules() -> None:
        """The first of them, for those who run the tests often."""
        found = search(range(FEW))
        assert found is None, str(found)

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    @pytest.mark.parametrize("numbers", parts(), ids=lambda part: f"{part.start}-{part.stop}")
    def test_many_schedules(numbers: range) -> None:
        """Whatever happens in whatever order: one order, no silent loss, nothing twice, no leak."""
        found = search(numbers)
        assert found is None, str(found)

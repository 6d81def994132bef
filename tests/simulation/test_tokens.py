"""A schedule is its token, and the token is all that a course depends on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.course import course_of
from tests.simulation.drawing import draw
from tests.simulation.schedule import Connect, Emit, Schedule, Setup, Wait, What
from tests.simulation.telling import digest_of

DIGESTS = """
import sys
from tests.simulation.course import course_of
from tests.simulation.drawing import draw
from tests.simulation.telling import digest_of
for number in map(int, sys.argv[1:]):
    print(digest_of(course_of(draw(number))[1].journal))
"""


@given(st.integers(min_value=0, max_value=1 << 40))
def test_a_token_gives_its_schedule_back(number: int) -> None:
    """Whatever the schedule; and the token can be pasted anywhere."""
    schedule = draw(number)
    token = schedule.token
    assert Schedule.from_token(token) == schedule
    assert token.isascii()
    assert all(character.isalnum() or character in "-_" for character in token)


def test_a_short_schedule_has_a_short_token() -> None:
    """What is as by default takes no room."""
    schedule = Schedule(Setup(), [Connect(), Emit(what=What.DELTA, count=3), Wait(how_long=3)])
    assert len(schedule.token) <= 30
    assert str(schedule).splitlines() == [
        "Setup()",
        "Connect()",
        "Emit(what=DELTA, count=3)",
        "Wait(how_long=3)",
    ]


@pytest.mark.parametrize("text", ["", "0abc", "1", "1!!!", "1AAAA", "1kpPM", draw(7).token[:-5]])
def test_what_is_no_token_is_refused(text: str) -> None:
    """With a word about it, not with an error from somewhere inside."""
    with pytest.raises(ValueError, match=r"format 1|cannot be read as a schedule"):
        Schedule.from_token(text)


def test_the_same_schedule_takes_the_same_course() -> None:
    """In this process, and in others whose hashes of texts differ."""
    numbers = range(40, 60)
    here = [digest_of(course_of(draw(number))[1].journal) for number in numbers]
    for seed in ("1", "2"):
        answer = subprocess.run(
            [sys.executable, "-c", DIGESTS, *map(str, numbers)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout.split() == here

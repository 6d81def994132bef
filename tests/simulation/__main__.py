"""
``python -m tests.simulation TOKEN``: replay a schedule, and show what happens in it.

Instead of a token there may be the number of a schedule, as ``draw`` takes it.
"""

from __future__ import annotations

import sys

from tests.simulation.course import course_of
from tests.simulation.drawing import draw
from tests.simulation.schedule import Schedule, shown
from tests.simulation.telling import lines_of


def main(asked: str) -> int:
    """Replay one schedule; 1 if something does not hold."""
    is_number = asked.isdecimal() and len(asked) <= 9
    schedule = draw(int(asked)) if is_number else Schedule.from_token(asked)
    problems, judge = course_of(schedule)
    print(shown(schedule.setup), *lines_of(judge.journal), sep="\n")
    print(*problems or ("everything holds",), sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Places that are for one thread at a time."""

from __future__ import annotations

import contextlib
import threading

from catenary.validate.threads import ThreadMonitor, ViolationKind
from tests.validate.threads.acting import PATIENCE, beginning, in_thread, line_of


def test_two_threads_inside_at_once_are_found() -> None:
    """Both are named, each with its place; the second one is not held back."""
    monitor = ThreadMonitor()
    is_inside, is_over = threading.Event(), threading.Event()

    def first() -> None:
        with monitor.exclusive("counting"):
            is_inside.set()
            is_over.wait(PATIENCE)

    def second() -> None:
        with monitor.exclusive("counting"):
            is_over.set()

    one = beginning("first", first)
    assert is_inside.wait(PATIENCE)
    in_thread("second", second)
    one.join(PATIENCE)
    (violation,) = monitor.violations
    where = test_two_threads_inside_at_once_are_found
    assert (violation.kind, violation.what) == (ViolationKind.TOGETHER, "counting")
    assert violation.thread == "second"
    assert violation.place.startswith(line_of(where, "def second").rpartition(":")[0])
    assert violation.other is not None
    assert violation.other.thread == "first"
    assert violation.other.place == line_of(where, "is_over.wait(")


def test_one_after_the_other_is_fine() -> None:
    """Also again, inside itself, after an exception, and beside a section of another name."""
    monitor = ThreadMonitor()

    def work() -> None:
        with monitor.exclusive("counting"), monitor.exclusive("counting"):
            in_thread("beside", beside)
        with contextlib.suppress(ZeroDivisionError), monitor.exclusive("counting"):
            _ = 1 / 0

    def beside() -> None:
        with monitor.exclusive("writing"):
            pass

    in_thread("first", work)
    in_thread("second", work)
    monitor.check()


def test_many_threads_inside_are_each_reported() -> None:
    """Whoever enters is told of everyone inside."""
    monitor = ThreadMonitor()
    barrier = threading.Barrier(4)

    def work() -> None:
        with monitor.exclusive("counting"):
            barrier.wait(PATIENCE)

    threads = [beginning(f"t{number}", work) for number in range(4)]
    for thread in threads:
        thread.join(PATIENCE)
    assert monitor.violation_count == 1 + 2 + 3

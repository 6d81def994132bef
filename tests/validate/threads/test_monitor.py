"""What a monitor reports, and how."""

from __future__ import annotations

import threading
import time

import pytest

from catenary.errors import CatenaryError
from catenary.validate.threads import ThreadMonitor, ThreadViolations, ViolationKind
from catenary.validate.threads.journal import KEPT
from tests.validate.threads.acting import PATIENCE, beginning, in_thread


def test_a_monitor_that_saw_nothing_says_nothing() -> None:
    monitor = ThreadMonitor()
    monitor.check()
    assert monitor.violations == ()
    assert monitor.contention() == ()


def test_check_raises_with_every_violation() -> None:
    """Each in a line with kind, what, thread, place and time."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "carts")
    in_thread("careless", lambda: monitor.expect_held(lock, "cart.add()"))
    with lock:
        in_thread("careless too", lambda: monitor.expect_held(lock, "cart.clear()"))
        monitor.expect_held(lock, "cart.add()")
    with pytest.raises(ThreadViolations) as caught:
        monitor.check()
    assert isinstance(caught.value, CatenaryError)
    assert caught.value.count == 2
    assert caught.value.violations == monitor.violations
    first, second = str(caught.value).splitlines()[1:]
    assert first.startswith("- unguarded: cart.add() without carts, by careless at ")
    assert f"{__file__}:" in first
    assert time.strftime("%Y-%m-%d", time.gmtime(monitor.violations[0].at)) in first
    assert f"; {threading.current_thread().name} at {__file__}:" in second


def test_a_storm_of_violations_is_bounded() -> None:
    """The first are kept, and all are counted."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "l")

    def storm() -> None:
        for _ in range(KEPT // 4):
            monitor.expect_held(lock, "x")

    threads = [beginning(f"t{number}", storm) for number in range(8)]
    for thread in threads:
        thread.join(PATIENCE)
    assert monitor.violation_count == 2 * KEPT
    assert len(monitor.violations) == KEPT


def test_what_must_hold_can_be_said_in_the_code_itself() -> None:
    """For what no proxy can stand before."""
    monitor = ThreadMonitor()
    me = threading.current_thread()
    monitor.expect_on(me, "the cache")
    monitor.check()
    in_thread("other", lambda: monitor.expect_on(me, "the cache"))
    (violation,) = monitor.violations
    assert (violation.kind, violation.what) == (ViolationKind.FOREIGN_THREAD, "the cache")


def test_the_lock_that_was_waited_for_most_comes_first() -> None:
    monitor = ThreadMonitor()
    quiet, busy = (monitor.lock(threading.Lock(), name) for name in ("quiet", "busy"))
    with quiet:
        pass
    with busy:
        in_thread("waiter", lambda: busy.acquire(timeout=0.01))
    assert [each.name for each in monitor.contention()] == ["busy", "quiet"]

"""Orders of locks that can end in a deadlock, found without one."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from catenary.validate.threads import MonitoredLock, ThreadMonitor, ViolationKind
from tests.validate.threads.acting import in_thread, line_of


def locks(monitor: ThreadMonitor, names: str) -> list[MonitoredLock]:
    return [monitor.lock(threading.Lock(), name) for name in names]


def take(*chosen: MonitoredLock) -> None:
    """Take locks in this order, one inside the other."""
    for lock in chosen:
        lock.acquire()
    for lock in reversed(chosen):
        lock.release()


def found(monitor: ThreadMonitor) -> Sequence[str]:
    assert {violation.kind for violation in monitor.violations} <= {ViolationKind.LOCK_ORDER}
    return [violation.what for violation in monitor.violations]


def test_two_orders_of_two_locks_are_found() -> None:
    """With both threads and the place of each, though they never met."""
    monitor = ThreadMonitor()
    a, b = locks(monitor, "ab")

    def one() -> None:
        with a, b:
            pass

    def other() -> None:
        with b:
            a.acquire()
            a.release()

    in_thread("one", one)
    assert found(monitor) == []
    in_thread("other", other)
    assert found(monitor) == ["b then a, elsewhere a then b"]
    (violation,) = monitor.violations
    where = test_two_orders_of_two_locks_are_found
    assert (violation.thread, violation.place) == ("other", line_of(where, "a.acquire()"))
    assert violation.other is not None
    assert (violation.other.thread, violation.other.place) == ("one", line_of(where, "with a, b"))


def test_one_order_is_no_violation() -> None:
    """However many threads take the locks, also one of them alone."""
    monitor = ThreadMonitor()
    a, b, c = locks(monitor, "abc")
    for number, chosen in enumerate([(a, b), (b, c), (a, c), (a, b, c), (c,), (b,), (a,)]):
        in_thread(f"t{number}", lambda chosen=chosen: take(*chosen))  # type: ignore[misc]
    assert found(monitor) == []


def test_a_circle_of_three_is_found() -> None:
    """Though no two threads take the same two locks."""
    monitor = ThreadMonitor()
    a, b, c = locks(monitor, "abc")
    in_thread("one", lambda: take(a, b))
    in_thread("two", lambda: take(b, c))
    in_thread("three", lambda: take(c, a))
    assert found(monitor) == ["c then a, elsewhere a then b then c"]


def test_an_order_is_reported_once() -> None:
    """However often it is taken."""
    monitor = ThreadMonitor()
    a, b = locks(monitor, "ab")
    for _ in range(5):
        in_thread("one", lambda: take(a, b))
        in_thread("other", lambda: take(b, a))
    assert len(found(monitor)) == 1


def test_an_attempt_that_does_not_wait_is_no_danger() -> None:
    """Who takes a lock only if it is free waits for nobody."""
    monitor = ThreadMonitor()
    a, b = locks(monitor, "ab")
    in_thread("one", lambda: take(a, b))

    def careful() -> None:
        with b:
            assert a.acquire(blocking=False)
            a.release()

    in_thread("careful", careful)
    assert found(monitor) == []


def test_taking_a_lock_again_is_no_order() -> None:
    """A thread that holds an RLock does not wait for it."""
    monitor = ThreadMonitor()
    a, b = (monitor.lock(threading.RLock(), name) for name in "ab")
    in_thread("one", lambda: take(a, b, a))
    assert found(monitor) == []


def test_a_lock_that_another_thread_gave_back_is_held_no_more() -> None:
    """A plain lock may be a signal; its taker's next lock is then no order."""
    monitor = ThreadMonitor()
    a, b = locks(monitor, "ab")
    a.acquire()
    in_thread("other", a.release)
    take(b)
    in_thread("third", lambda: take(b, a))
    assert found(monitor) == []


def test_locks_of_two_monitors_are_two_worlds() -> None:
    """Each monitor speaks of its own."""
    first, second = ThreadMonitor(), ThreadMonitor()
    (a,), (b,) = locks(first, "a"), locks(second, "b")
    in_thread("one", lambda: take(a, b))
    in_thread("other", lambda: take(b, a))
    assert found(first) == found(second) == []

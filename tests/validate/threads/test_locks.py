"""Locks in front of others: the same use, and what they measure."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable

import pytest

from catenary.validate.threads import MonitoredLock, ThreadMonitor
from tests.validate.threads.acting import PATIENCE, beginning, in_thread, line_of, until_in

KINDS = [threading.Lock, threading.RLock]


def held_by_other(lock: MonitoredLock) -> Callable[[], None]:
    """Let a thread ``holder`` take a lock; returns what makes it give the lock back."""
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            is_over.wait(PATIENCE)

    thread = beginning("holder", hold)
    assert is_held.wait(PATIENCE)

    def release() -> None:
        is_over.set()
        thread.join(PATIENCE)

    return release


def is_free(lock: MonitoredLock) -> bool:
    """Whether nothing says that somebody has a lock."""
    return not lock.locked() and lock.holder() is None and lock not in lock._order.held


@pytest.mark.parametrize("kind", KINDS)
def test_it_locks(kind: Callable[[], threading.Lock]) -> None:
    """While one thread has it, another one gets it neither at once nor within a time."""
    lock = ThreadMonitor().lock(kind(), "l")
    release = held_by_other(lock)
    assert lock.locked()
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(timeout=0.01)
    release()
    assert lock.acquire(timeout=PATIENCE)
    lock.release()
    assert not lock.locked()
    assert lock.contention().refusals == 2
    with pytest.raises(RuntimeError):
        lock.release()


def test_threads_that_use_the_lock_behind_are_excluded() -> None:
    """It stands in front of that lock; it is no other one."""
    behind = threading.Lock()
    lock = ThreadMonitor().lock(behind, "l")
    with behind:
        assert not lock.acquire(blocking=False)
    with lock:
        assert not behind.acquire(blocking=False)


def test_a_lock_that_may_be_taken_again_may_be_taken_again() -> None:
    """It is free after as many releases, and counted as taken once."""
    lock = ThreadMonitor().lock(threading.RLock(), "l")
    with lock, lock:
        lock.acquire()
        lock.release()
        assert lock.is_held
    assert not lock.is_held
    assert lock.acquire(blocking=False)
    lock.release()
    assert lock.contention().acquisitions == 2


@pytest.mark.parametrize("kind", KINDS)
def test_who_holds_it_is_known(kind: Callable[[], threading.Lock]) -> None:
    """By its thread, not by whether someone does; with the place where that thread is."""
    lock = ThreadMonitor().lock(kind(), "l")
    release = held_by_other(lock)
    assert not lock.is_held
    holder = lock.holder()
    assert holder is not None
    assert holder.thread == "holder"
    assert holder.place == line_of(held_by_other, "is_over.wait")
    release()
    assert lock.holder() is None


def test_a_lock_that_was_taken_behind_its_back_is_known_to_be_held() -> None:
    """An RLock knows its owner, however it was taken."""
    behind = threading.RLock()
    lock = ThreadMonitor().lock(behind, "l")
    with behind:
        assert lock.is_held


def test_waits_are_measured_with_thread_and_place() -> None:
    """How many waited, for how long, who waited the longest, where, and for whom."""
    lock = ThreadMonitor().lock(threading.Lock(), "cart")
    release = held_by_other(lock)

    def wait() -> None:
        with lock:
            pass

    waiter = beginning("waiter", wait)
    until_in(waiter, "_wait")
    in_thread("impatient", lambda: lock.acquire(timeout=0.05))
    release()
    waiter.join(PATIENCE)
    found = lock.contention()
    assert (found.name, found.acquisitions, found.waits, found.refusals) == ("cart", 2, 2, 1)
    assert found.waited >= found.longest >= 0.05
    assert found.waited == pytest.approx(sum(waits.total for waits in found.by_place))
    place = line_of(test_waits_are_measured_with_thread_and_place, "with lock:")
    (there,) = [waits for waits in found.by_place if waits.place == place]
    assert (there.count, there.thread) == (1, "waiter")
    assert there.holder is not None
    assert there.holder.thread == "holder"


def test_who_does_not_wait_counts_no_wait() -> None:
    """A lock that is free is taken, and that is all."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "l")
    for _ in range(10):
        with lock:
            pass
    (found,) = monitor.contention()
    assert (found.acquisitions, found.waits, found.waited, found.by_place) == (10, 0, 0.0, ())


@pytest.mark.parametrize("kind", KINDS)
def test_it_serves_a_condition(kind: Callable[[], threading.Lock]) -> None:
    """Who waits for one gives the lock back meanwhile, however often it was taken."""
    lock = ThreadMonitor().lock(kind(), "l")
    condition = threading.Condition(lock)  # type: ignore[arg-type]
    is_ready = threading.Event()
    seen: list[bool] = []

    def wait() -> None:
        with condition:
            is_ready.set()
            seen.append(condition.wait(PATIENCE))
            seen.append(lock.is_held)

    thread = beginning("waiter", wait)
    assert is_ready.wait(PATIENCE)
    with condition:
        condition.notify()
    thread.join(PATIENCE)
    assert seen == [True, True]
    assert not lock.locked()


def test_counts_are_right_when_many_take_it() -> None:
    """Twenty threads, and no acquisition is lost or counted twice."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.RLock(), "l")
    taken = 0

    def take() -> None:
        nonlocal taken
        for _ in range(200):
            with lock:
                taken += 1

    threads = [beginning(f"t{number}", take) for number in range(20)]
    for thread in threads:
        thread.join(PATIENCE)
    assert lock.contention().acquisitions == taken == 4000
    assert monitor.violations == ()
    assert not lock.locked()


def test_a_finalizer_may_take_it_at_any_moment() -> None:
    """Garbage that takes the lock when it is collected leaves its state as it was."""
    lock = ThreadMonitor().lock(threading.RLock(), "l")
    finalized = 0

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            nonlocal finalized
            with lock:
                finalized += 1

    thresholds = gc.get_threshold()
    gc.set_threshold(3)
    try:
        for _ in range(1000):
            with lock:
                Garbage()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert finalized == 1000
    assert is_free(lock)


def test_a_signal_handler_may_take_it_at_any_moment() -> None:
    """It comes between any two steps of its own thread, and leaves the state as it was."""
    lock = ThreadMonitor().lock(threading.RLock(), "l")
    handled = taken = 0

    def handle(*_: object) -> None:
        nonlocal handled
        with lock:
            handled += 1

    former = signal.signal(signal.SIGVTALRM, handle)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1e-5, 1e-5)
    end = time.monotonic() + PATIENCE
    try:
        while handled < 300:
            assert time.monotonic() < end, f"{handled} signals came"
            with lock:
                taken += 1
                assert lock.holder() is not None
            assert is_free(lock)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)
    assert lock.contention().acquisitions <= taken + handled


def test_it_is_cheap() -> None:
    """Taking and giving back a free lock costs a few microseconds."""
    lock = ThreadMonitor().lock(threading.RLock(), "l")
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2000):
            with lock:
                pass
        best = min(best, (time.perf_counter() - began) / 2000)
    assert best < 30e-6

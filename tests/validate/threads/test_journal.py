"""What is written down, by whoever has the pen."""

from __future__ import annotations

import threading

from catenary.validate.threads.journal import Journal
from tests.validate.threads.acting import PATIENCE, beginning, in_thread


def test_nobody_waits_for_the_pen() -> None:
    """Who writes may wait for a lock that another one holds, who writes too: no deadlock."""
    journal, lock = Journal(), threading.Lock()
    is_writing, written = threading.Event(), []

    def writes_as_a_finalizer_may() -> None:
        is_writing.set()
        with lock:
            written.append("first")

    lock.acquire()
    first = beginning("first", lambda: journal.write(writes_as_a_finalizer_may))
    assert is_writing.wait(PATIENCE)
    in_thread("second", lambda: journal.write(lambda: written.append("second")))
    assert written == []
    lock.release()
    first.join(PATIENCE)
    assert written == ["first", "second"]


def test_a_note_within_a_note_comes_after_it() -> None:
    """A signal handler may come while its own thread writes."""
    journal = Journal()
    written: list[str] = []

    def outer() -> None:
        journal.write(lambda: written.append("inner"))
        written.append("outer")

    journal.write(outer)
    assert written == ["outer", "inner"]


def test_a_reader_writes_what_is_left_first() -> None:
    """A note that came while someone read waits for the next who takes the pen."""
    journal = Journal()
    written: list[str] = []
    journal.read(lambda: journal.write(lambda: written.append("late")))
    assert written == []
    assert journal.read(lambda: list(written)) == ["late"]


def test_every_note_is_written_once_and_in_order() -> None:
    """However many threads write; a reader sees all that was written before."""
    journal = Journal()
    written: list[tuple[int, int]] = []

    def write(sender: int) -> None:
        for number in range(200):
            journal.write(lambda number=number: written.append((sender, number)))  # type: ignore[misc]

    threads = [beginning(f"t{sender}", lambda sender=sender: write(sender)) for sender in range(10)]  # type: ignore[misc]
    for thread in threads:
        thread.join(PATIENCE)
    seen = journal.read(lambda: list(written))
    assert len(seen) == 2000
    for sender in range(10):
        assert [number for who, number in seen if who == sender] == list(range(200))

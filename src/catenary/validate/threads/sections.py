"""Places in the code that are for one thread at a time."""

from __future__ import annotations

import functools
import sys
import threading
from types import FrameType

from catenary.validate.threads.journal import Journal, ViolationKind, Whereabouts, violation
from catenary.validate.threads.place import outside, place_of


class Sections:
    """Who is inside of what, by the names of the places. Changes within notes of the journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._inside: dict[str, dict[threading.Thread, list[FrameType]]] = {}

    def enter(self, name: str, thread: threading.Thread, frame: FrameType) -> None:
        """A thread is inside; a violation for each other one that is."""
        inside = self._inside.setdefault(name, {})
        for other, frames in inside.items():
            if other is not thread:
                by = Whereabouts(thread.name, place_of(frame))
                there = Whereabouts(other.name, place_of(frames[-1]))
                self.journal.keep(violation(ViolationKind.TOGETHER, name, by, there))
        inside.setdefault(thread, []).append(frame)

    def leave(self, name: str, thread: threading.Thread) -> None:
        """A thread is outside again, unless it came in several times."""
        inside = self._inside[name]
        inside[thread].pop()
        if not inside[thread]:
            del inside[thread]
        if not inside:
            del self._inside[name]


class Section:
    """
    A context manager that reports when two threads are inside at once.

    It holds nobody back. One thread may enter it again while it is inside.
    """

    def __init__(self, name: str, sections: Sections) -> None:
        self._name = name
        self._sections = sections

    def __enter__(self) -> None:
        frame = outside(sys._getframe(1)) or sys._getframe()
        thread, sections = threading.current_thread(), self._sections
        sections.journal.write(functools.partial(sections.enter, self._name, thread, frame))

    def __exit__(self, *error: object) -> None:
        sections = self._sections
        leaving = functools.partial(sections.leave, self._name, threading.current_thread())
        sections.journal.write(leaving)

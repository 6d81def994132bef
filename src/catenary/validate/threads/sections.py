"""Places in the code that are for one thread at a time."""

from __future__ import annotations

import sys
import threading
from types import FrameType

from catenary.validate.threads.journal import Journal, ViolationKind, Whereabouts
from catenary.validate.threads.place import outside, place_of


class Section:
    """
    A context manager that reports when two threads are inside at once.

    It holds nobody back. One thread may enter it again while it is inside.
    """

    def __init__(self, name: str, journal: Journal) -> None:
        self.name = name
        self._journal = journal
        self._inside: dict[threading.Thread, list[FrameType]] = {}

    def __enter__(self) -> None:
        frame = outside(sys._getframe(1)) or sys._getframe()
        me = threading.current_thread()
        with self._journal.mutex:
            others = [
                Whereabouts(thread.name, place_of(frames[-1]))
                for thread, frames in self._inside.items()
                if thread is not me
            ]
            self._inside.setdefault(me, []).append(frame)
        for other in others:
            self._journal.note(ViolationKind.TOGETHER, self.name, frame, other)

    def __exit__(self, *error: object) -> None:
        me = threading.current_thread()
        with self._journal.mutex:
            frames = self._inside[me]
            frames.pop()
            if not frames:
                del self._inside[me]

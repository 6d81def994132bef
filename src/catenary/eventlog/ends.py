"""Who in this process is told that runs have ended."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """
    Someone who wants to know that a run has ended.

    ``run_ended`` is called within the commit, on whatever thread commits; it is
    as short as a watcher's ``wake``.
    """

    def run_ended(self) -> None: ...

    def was_told(self, log_id: str, run_id: str) -> bool:
        """Whether it has dealt with the end of this run."""
        ...


class RunEnds:
    """The listeners of one log; to call it tells them all. Thread-safe."""

    def __init__(self) -> None:
        self.listeners: tuple[Listener, ...] = ()

    def __call__(self) -> None:
        for listener in self.listeners:
            listener.run_ended()

    def add(self, listener: Listener) -> None:
        """Begin to tell a listener."""
        self.listeners = (*self.listeners, listener)

    def remove(self, listener: Listener) -> None:
        """Tell a listener no longer; the others look again at what waited for it."""
        self.listeners = tuple(other for other in self.listeners if other is not listener)
        self()

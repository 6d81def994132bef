"""Threads beside the writer's of a log that several processes share."""

from __future__ import annotations

import threading


def start_unless_ending(thread: threading.Thread) -> None:
    """
    Start a thread that a process needs no longer once it is ending.

    Python 3.12.0 and 3.12.1 start none from the moment on when the main thread
    is over, while what was accepted may still have to be committed.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if "interpreter shutdown" not in str(error):
            raise

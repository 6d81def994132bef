"""Threads that do one thing, by name, and where in a test something stands."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 10.0


def in_thread(name: str, act: Callable[[], object]) -> None:
    """Do something in a thread of this name, and wait for it."""
    begun = beginning(name, act)
    begun.join(PATIENCE)
    assert not begun.is_alive(), f"{name} hangs"


def beginning(name: str, act: Callable[[], object]) -> threading.Thread:
    """Begin to do something in a thread of this name."""
    thread = threading.Thread(target=act, name=name, daemon=True)
    thread.start()
    return thread


def until_in(thread: threading.Thread, function: str) -> None:
    """Wait until a thread is inside a function of this name."""
    end = time.monotonic() + PATIENCE
    while sys._current_frames()[thread.ident or 0].f_code.co_name != function:
        assert time.monotonic() < end, f"{thread.name} did not come to {function}()"
        time.sleep(0.001)


def line_of(function: Callable[..., object], text: str) -> str:
    """Return ``file:line`` of the first line of a function that holds this text."""
    lines, first = inspect.getsourcelines(inspect.unwrap(function))
    offset = next(number for number, line in enumerate(lines) if text in line)
    return f"{Path(inspect.getsourcefile(inspect.unwrap(function)) or '')}:{first + offset}"

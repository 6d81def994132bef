"""Where in the code a thread is, as reports show it."""

from __future__ import annotations

import contextlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from catenary.eventlog import stepping

_PACKAGE = f"{Path(__file__).parents[2]}/"
_STANDARD = f"{sysconfig.get_path('stdlib')}/"
_HIDDEN = (f"{Path(__file__).parent}/", contextlib.__file__, stepping.__file__)
"""What stands between a thread and what it does; nobody looks for it."""


def outside(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame of what a thread does, without what nobody looks for."""
    while frame is not None and frame.f_code.co_filename.startswith(_HIDDEN):
        frame = frame.f_back
    return frame


def place_of(frame: FrameType | None) -> str:
    """
    Return the ``file:line`` at which a thread does something.

    Inside Catenary it names the caller outside too, where there is one:
    ``…/eventlog/accepting.py:44, called at agents.py:12``.
    """
    frames = _seen(frame)
    inner = next(frames, None)
    if inner is None:
        return "?"
    if not _is_ours(inner):
        return _written(inner)
    outer = next((other for other in frames if not _is_ours(other)), None)
    # A thread of the standard library or a loop called it: that says nothing.
    if outer is None or _is_standard(outer):
        return _written(inner)
    return f"{_written(inner)}, called at {_written(outer)}"


def _seen(frame: FrameType | None) -> Iterator[FrameType]:
    while (frame := outside(frame)) is not None:
        yield frame
        frame = frame.f_back


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _is_standard(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith((_STANDARD, "<frozen")) and "site-packages" not in name


def _written(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"

"""The run that the code at work belongs to."""

from __future__ import annotations

import contextvars
import weakref
from typing import TYPE_CHECKING

from catenary.errors import UsageError

if TYPE_CHECKING:
    from catenary.runs import Run

# A weak reference: a context outlives its run, and a run that nobody holds must be collected.
_current: contextvars.ContextVar[weakref.ref[Run] | None] = contextvars.ContextVar(
    "catenary_run", default=None
)

Token = contextvars.Token["weakref.ref[Run] | None"]


def current_run() -> Run:
    """
    Return the run that this code works for, so that tools emit without plumbing.

    It follows the context: tasks and ``asyncio.to_thread`` inherit it.

    Raises:
        UsageError: Outside any run.
    """
    reference = _current.get()
    run = reference() if reference is not None else None
    if run is None:
        raise UsageError("current_run() works inside `async with emitter.run(…)` only")
    return run


def enter(run: Run) -> Token:
    """Make a run the current one; undo it with :func:`leave`."""
    return _current.set(weakref.ref(run))


def leave(token: Token) -> None:
    """Make the former run the current one again."""
    try:
        _current.reset(token)
    except ValueError:
        # A collected task is closed in another context; its variable went with it.
        return

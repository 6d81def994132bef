"""Synchronous work beside the loop, in threads that never keep a process alive."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def is_coroutine_function(function: object) -> bool:
    """Whether a call gives a coroutine: also of a partial, and of an object that is called."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - a callable object may be async
    )


def call_in_thread(
    work: Callable[[], T], *, name: str, on_end: Callable[[], None] | None = None
) -> asyncio.Future[T]:
    """
    Call ``work`` in a thread of its own, with a copy of this context.

    The thread is a daemon: work that hangs does not keep the process from
    ending, as a pool's threads would. Cancelling the future leaves the thread
    running; ``on_end`` is called on the loop when it has returned.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if on_end is not None:
            on_end()
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = context.run(work)
        except StopIteration as raised:
            # A future cannot carry it.
            error = RuntimeError("StopIteration was raised")
            error.__cause__ = raised
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            # The loop has closed; nobody waits any more.
            return

    threading.Thread(target=run, name=name, daemon=True).start()
    return future

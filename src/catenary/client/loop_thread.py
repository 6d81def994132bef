"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from catenary.client.errors import CommandFailed
from catenary.errors import UsageError

T = TypeVar("T")


class LoopThread:
    """
    Runs coroutines for other threads, until it is stopped.

    The thread is a daemon, so that a program which forgets to stop it ends.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._lock = threading.Lock()
        self._accepts = True
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """
        Have a coroutine run.

        Raises:
            CommandFailed: With ``closed``, if the thread is stopped.
            UsageError: In this thread itself, which would wait for itself.
        """
        with self._lock:
            if self._accepts and not self._is_current:
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        coroutine.close()
        if self._is_current:
            raise UsageError("a function given to a blocking client cannot wait for it")
        raise CommandFailed("closed", "the client is closed")

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """
        Have a coroutine run, and wait for its end.

        Raises:
            CommandFailed: With ``closed``, if the thread is stopped, also meanwhile.
            UsageError: As :meth:`submit` does.
        """
        return _result(self.submit(coroutine))

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """
        Run ``last``, cancel what still runs, and end the thread; a second call does nothing.

        Raises:
            UsageError: In this thread itself.
        """
        with self._lock:
            may_stop = self._accepts and not self._is_current
            if may_stop:
                # From here on nothing is submitted that nobody would finish.
                self._accepts = False
        if not may_stop:
            last.close()
            if self._is_current:
                raise UsageError("a function given to a blocking client cannot close it")
            return
        try:
            _result(asyncio.run_coroutine_threadsafe(last, self._loop))
        finally:
            self._end()

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is accepted."""
        return not self._accepts

    @property
    def _is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def _end(self) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _result(future: concurrent.futures.Future[T]) -> T:
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise CommandFailed("closed", "the client was closed meanwhile") from None
    except BaseException:
        future.cancel()
        raise


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()

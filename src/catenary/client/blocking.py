"""The client for threads that have no event loop."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from catenary.client.client import Client
from catenary.client.errors import CommandFailed
from catenary.client.loop_thread import LoopThread
from catenary.client.messages import Connected
from catenary.client.state import State, Stats
from catenary.errors import UsageError
from catenary.events import WebSocketEvent
from catenary.position import Position


class BlockingClient:
    """
    A :class:`Client` in a thread of its own, for code without an event loop.

    ::

        with BlockingClient("wss://host/ws", token=fetch_token) as client:
            for event in client:
                ...

    It takes the same arguments and keeps the same promises. One thread
    iterates; any thread may send. Functions given to it (``token``,
    ``on_gap``) run in the client's thread.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """
        Describe a client; it connects when it is opened.

        Raises:
            UsageError: As :class:`Client` does.
        """
        self._client = Client(url, **options)
        self._thread: LoopThread | None = None
        self._next: concurrent.futures.Future[WebSocketEvent | None] | None = None
        self._iterating = threading.Lock()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None and not self._opened.is_stopped:
            self.handled()
        self.close()

    def open(self) -> None:
        """
        Start the client's thread, and begin to connect.

        Raises:
            UsageError: If it was opened before.
            ConfigError: If the position store cannot be read.
        """
        if self._thread is not None:
            raise UsageError("a client is opened once; make another")
        self._thread = LoopThread("catenary client")
        try:
            self._thread.run(self._client.open())
        except BaseException:
            self._thread.stop(_nothing())
            raise

    def close(self) -> None:
        """
        Leave, and end the client's thread. Calls that wait in other threads fail.

        Raises:
            UsageError: In a function given to the client.
        """
        self._opened.stop(self._client.close())

    def __iter__(self) -> Iterator[WebSocketEvent]:
        return self

    def __next__(self) -> WebSocketEvent:
        """
        Bring the next event; asking for it says that the former is handled.

        Raises:
            Gap: If events were lost; iterate again once that is dealt with.
            ConnectionClosed: If the server forbids coming back.
            AuthError: If the credentials are refused.
            UsageError: If another thread iterates.
        """
        event = self._receive(None)
        if event is None:
            raise StopIteration
        return event

    def receive(self, timeout: float | None = None) -> WebSocketEvent | None:
        """
        Bring the next event, or None once the client is closed.

        Raises:
            TimeoutError: If none came within ``timeout`` seconds; none is lost by it.
            Gap: And the rest as :meth:`__next__`.
        """
        return self._receive(timeout)

    def handled(self) -> None:
        """Say that the event in hand is handled, before the next one is asked for."""
        self._opened.run(self._handled())

    def send(
        self,
        type: str,
        data: Any = None,
        *,
        thread_id: str | None = None,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """
        Send a message to the application on the server, and bring its reply.

        Raises:
            CommandFailed: And the rest as :meth:`Client.send`.
        """
        sending = self._client.send(type, data, thread_id=thread_id, id=id, timeout=timeout)
        return self._opened.run(sending)

    def cancel_run(
        self, run_id: str, reason: str | None = None, *, timeout: float | None = None
    ) -> bool:
        """
        Ask for a run to be cancelled; True once that is stored, False if it had ended.

        Raises:
            CommandFailed: And the rest as :meth:`Client.cancel_run`.
        """
        return self._opened.run(self._client.cancel_run(run_id, reason, timeout=timeout))

    def answer(self, request_id: str, answer: Any, *, timeout: float | None = None) -> Any:
        """
        Answer what a run asked; the answer that counts: another's, if that was first.

        Raises:
            CommandFailed: And the rest as :meth:`Client.answer`.
        """
        return self._opened.run(self._client.answer(request_id, answer, timeout=timeout))

    def ping(self) -> float:
        """
        Ask the server for a sign of life; the seconds until it came.

        Raises:
            CommandFailed: If the client is closed.
        """
        return self._opened.run(self._client.ping())

    def report_position(self) -> Position | None:
        """
        Tell the server what is handled, and wait until it knows.

        Raises:
            CommandFailed: If the client is closed.
        """
        return self._opened.run(self._client.report_position())

    @property
    def position(self) -> Position | None:
        """The place through which everything is handled: the one to keep."""
        return self._client.position

    @property
    def state(self) -> State:
        """Where the client stands."""
        return self._client.state

    @property
    def connected(self) -> Connected | None:
        """The server's greeting on the latest connection, with the user's id."""
        return self._client.connected

    @property
    def stats(self) -> Stats:
        """What was seen so far."""
        return self._client.stats

    def _receive(self, timeout: float | None) -> WebSocketEvent | None:
        if not self._iterating.acquire(blocking=False):
            raise UsageError("one thread iterates over a client; another does so now")
        try:
            # A question that was left unanswered, by a timeout or Ctrl-C, is
            # taken up again: cancelling it might lose the event that answers it.
            if self._next is None:
                try:
                    self._next = self._opened.submit(self._anext())
                except CommandFailed:
                    return None  # the client is closed
            done, _ = concurrent.futures.wait([self._next], timeout)
            if not done:
                raise TimeoutError(f"no event within {timeout} s")
            answered, self._next = self._next, None
            return answered.result()
        except concurrent.futures.CancelledError:
            return None  # another thread closed the client
        finally:
            self._iterating.release()

    async def _anext(self) -> WebSocketEvent | None:
        try:
            return await anext(self._client)
        except StopAsyncIteration:
            return None

    async def _handled(self) -> None:
        self._client.handled()

    @property
    def _opened(self) -> LoopThread:
        if self._thread is None:
            raise UsageError("open the client first: with BlockingClient(...) as client")
        return self._thread


async def _nothing() -> None:
    """Leave nothing: the client was never there."""

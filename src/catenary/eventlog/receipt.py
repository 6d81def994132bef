"""Receipts: what an emitter holds until its event is in the log."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Generator, Iterable

from catenary.errors import CatenaryError, UsageError
from catenary.position import Position

logger = logging.getLogger("catenary.receipt")

unheard_failures = 0
"""How many receipts failed and were collected before anyone asked for the outcome."""


class Receipt:
    """
    The promise that an accepted event reaches the log.

    ``await receipt`` works on any loop, ``receipt.result(timeout)`` in any
    thread without a running one; both give the event's :class:`Position` once
    the log has committed it, or raise what the log refused it with. Awaiting
    always lets other tasks run. A failed receipt that nobody asked is logged
    and counted when it is collected.

    A cancelled await or a timeout leaves the outcome unknown: the event stays
    accepted and may still be committed.
    """

    __slots__ = ("__weakref__", "_epoch", "_failure", "_seq", "_waiters")

    def __init__(self) -> None:
        self._epoch = ""
        self._seq = 0
        self._failure: _Failure | None = None
        self._waiters: list[_Waiter | _Follower] | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the outcome is known."""
        return self._seq > 0 or self._failure is not None

    def __await__(self) -> Generator[object, None, Position]:
        if self.is_settled:
            yield None
            return self._outcome()
        waiter = _Waiter(asyncio.get_running_loop())
        self._add(waiter)
        if waiter.future is not None and not self.is_settled:
            yield from waiter.future
        return self._outcome()

    def result(self, timeout: float | None = None) -> Position:
        """
        Wait for the outcome in a thread without a running loop.

        Raises:
            TimeoutError: After ``timeout`` seconds; the outcome is then unknown.
            UsageError: On a thread whose loop is running: await the receipt there.
        """
        if asyncio._get_running_loop() is not None:
            raise UsageError("result() would block the running loop; await the receipt instead")
        if not self.is_settled:
            waiter = _Waiter(None)
            self._add(waiter)
            if not self.is_settled and not waiter.event.wait(timeout):
                raise TimeoutError(
                    f"the event is not in the log after {timeout} s; it stays accepted, and "
                    "whether it will be committed is not known yet",
                )
        return self._outcome()

    def _add(self, waiter: _Waiter | _Follower) -> None:
        # The waiter is in place before the caller looks again, and settling publishes the
        # outcome before it looks for waiters: one of the two always sees the other.
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)

    def _outcome(self) -> Position:
        if self._failure is not None:
            self._failure.heard = True
            raise self._failure.error
        return Position(self._epoch, self._seq)

    @property
    def is_unheard_failure(self) -> bool:
        """Whether the log refused the event and nobody was told yet."""
        return self._failure is not None and not self._failure.heard

    def share(self, other: Receipt) -> None:
        """Give ``other``, which was handed out already, the outcome of this receipt."""
        follower = _Follower(self, other)
        self._add(follower)
        if self.is_settled:
            follower.event.set()

    def commit(self, epoch: str, seq: int) -> None:
        """Record that the log has the event. Called by the log; then :func:`wake`."""
        self._epoch = epoch
        self._seq = seq

    def fail(self, error: BaseException) -> None:
        """Record that the log refused the event. Called by the log; then :func:`wake`."""
        self._failure = _Failure(error)


class _Failure:
    """Why a receipt failed; speaks up when it is collected unheard."""

    __slots__ = ("error", "heard")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.heard = False

    def __del__(self) -> None:
        if not self.heard:
            global unheard_failures
            unheard_failures += 1
            logger.error("an event was not committed and nobody asked: %s", self.error)


class _Waiter:
    __slots__ = ("event", "future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.future = loop.create_future() if loop is not None else None
        self.event = threading.Event() if loop is None else _NEVER


class _Follower:
    """A waiter that passes the outcome on to a second receipt."""

    __slots__ = ("_from", "_to")

    loop = None
    future = None

    def __init__(self, source: Receipt, target: Receipt) -> None:
        self._from = source
        self._to = target

    @property
    def event(self) -> _Follower:
        return self

    def set(self) -> None:
        self._to._epoch, self._to._failure = self._from._epoch, self._from._failure
        self._to._seq = self._from._seq
        wake((self._to,))


_NEVER = threading.Event()


def wake(receipts: Iterable[Receipt]) -> None:
    """Wake whoever waits for these settled receipts: one call a loop, however many."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] | None = None
    for receipt in receipts:
        for waiter in receipt._waiters or ():
            if waiter.loop is None or waiter.future is None:
                waiter.event.set()
                continue
            if by_loop is None:
                by_loop = defaultdict(list)
            by_loop[waiter.loop].append(waiter.future)
    for loop, futures in (by_loop or {}).items():
        try:
            loop.call_soon_threadsafe(_release, futures)
        except RuntimeError:
            # The loop has closed, and with it every task that waited there.
            continue


def _release(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


async def settled(receipts: Iterable[Receipt], timeout: float | None) -> None:
    """
    Wait until the outcome of every receipt is known, good or bad.

    Raises:
        TimeoutError: After ``timeout`` seconds.
    """
    async with asyncio.timeout(timeout):
        for receipt in receipts:
            try:
                await receipt
            except CatenaryError:
                continue


class Notice:
    """A callback that wakes whoever awaits a receipt, on whatever loop."""

    def __init__(self, receipt: Receipt) -> None:
        self._receipt = receipt

    def __call__(self) -> None:
        self._receipt.commit("", 1)
        wake((self._receipt,))

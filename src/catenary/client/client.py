"""The asyncio client."""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import SystemRandom
from types import TracebackType
from typing import Literal, Self

from catenary.client.backoff import Backoff
from catenary.client.calls import Calls
from catenary.client.commands import Outcome
from catenary.client.connection import Dialing
from catenary.client.driver import Driver
from catenary.client.errors import CommandFailed, Gap
from catenary.client.messages import Connected
from catenary.client.position_store import Keeper, PositionStore
from catenary.client.session import Session
from catenary.client.state import Limits, State, Stats
from catenary.client.token import Token, TokenSource
from catenary.errors import UsageError
from catenary.events import WebSocketEvent
from catenary.position import Position

logger = logging.getLogger("catenary.client")

OnGap = Literal["raise"] | Callable[[Gap], Awaitable[None] | None]


class Client(Calls):
    """
    A user's events, in order, each once, across as many connections as it takes.

    Use it as a context manager and iterate::

        async with Client("wss://host/ws", token=fetch_token) as client:
            async for event in client:
                ...

    It connects in the background and comes back after every break, without
    end, until the server forbids it. An event counts as handled when the next
    one is asked for, or when the block is left without an exception.

    At most ``limits.ahead_frames`` messages are read ahead of the application.
    Then the client stops reading, so a slow application costs no memory: the
    events stay in the server's log. While a :meth:`send`, :meth:`ping` or
    :meth:`report_position` awaits its answer, reading goes on up to
    ``limits.answer_ahead_bytes``; what lies beyond is passed over and fetched
    again afterwards. So each of them may be awaited inside the iteration.

    One task iterates; any task of the same loop may send.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        after: str | None = None,
        thread_ids: Sequence[str] = (),
        log: str | None = None,
        position_store: PositionStore | None = None,
        on_gap: OnGap = "raise",
        headers: Mapping[str, str] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        max_message_bytes: int = 4 << 20,
        close_timeout: float = 2.0,
        limits: Limits | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """
        Describe a client; it connects when it is opened.

        Args:
            url: Of the server's ``/ws``.
            token: A token, or a function, plain or async, that brings a fresh one for
                each attempt and before the present one expires. A plain one runs on the
                loop, so it must not block. If it raises, the attempt counts as failed;
                a ``CatenaryError`` ends the client.
            after: Where to begin: ``start`` (also if None), ``open``, ``now``, or a position.
                What the position store has wins.
            thread_ids: Only the events of these threads.
            log: A log other than one's own.
            position_store: Where the position is kept, at most once a second.
            on_gap: ``raise``, or a function, plain or async, that reloads the state.
            headers: Further headers of the handshake.
            ssl: For ``wss://`` with other certificates than the system's.
            max_message_bytes: The largest message of the server that is taken.
            close_timeout: How many seconds leaving may take.
            limits: Other measures.
            backoff: Other waits.

        Raises:
            UsageError: If the URL or ``after`` cannot be.
        """
        self._dialing = Dialing(
            url, log, tuple(thread_ids), headers or {}, ssl, max_message_bytes, close_timeout
        )
        self._dialing.check()
        if on_gap != "raise" and not callable(on_gap):
            raise UsageError("on_gap is 'raise' or a function that takes the gap")
        self._tokens = TokenSource(token)
        self._keeper = None if position_store is None else Keeper(position_store, self._dialing.key)
        self._on_gap = on_gap
        self._limits = limits or Limits()
        self._after = after
        self._backoff = backoff or Backoff(random=SystemRandom())
        self._session = self._begin(after, now=0.0)
        self._driver: Driver | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._is_iterating = False
        self._changed = asyncio.Event()
        self._pings = 0
        self._events = 0

    # Life

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.handled()
        await self.close()

    async def open(self) -> None:
        """
        Begin to connect, in the background.

        Raises:
            UsageError: If it was opened before.
            ConfigError: If the position store cannot be read.
        """
        if self._driver is not None:
            raise UsageError("a client is opened once; make another")
        after = self._after if self._keeper is None else await self._keeper.load() or self._after
        self._session = self._begin(after, now=asyncio.get_running_loop().time())
        self._driver = Driver(self._session, self._dialing, self._tokens, self._on_change)
        self._tasks.append(asyncio.create_task(self._driver.run()))
        if self._keeper is not None:
            self._tasks.append(asyncio.create_task(self._keeper.run(self._limits.report_interval)))

    async def close(self) -> None:
        """
        Leave: report and keep the position, close the connection, end the iteration.

        The event in hand does not count as handled; see :meth:`handled`.
        """
        driver = self._opened
        driver.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._keeper is not None:
            await self._keeper.save()

    # Events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WebSocketEvent:
        """
        Bring the next event; asking for it says that the former is handled.

        Raises:
            Gap: If events were lost; iterate again once that is dealt with.
            ConnectionClosed: If the server forbids coming back.
            AuthError: If the credentials are refused.
            UsageError: If another task iterates.
        """
        driver = self._opened
        if self._is_iterating:
            raise UsageError("one task iterates over a client; another does so now")
        self._is_iterating = True
        try:
            self.handled()
            while True:
                content = self._session.inbox.take()
                if driver.is_held_back:
                    driver.pump()
                if isinstance(content, WebSocketEvent):
                    self._events += 1
                    return content
                if content is not None:
                    await self._meet(content)
                else:
                    await self._wait_for_more(driver)
        finally:
            self._is_iterating = False

    def handled(self) -> None:
        """Say that the event in hand is handled, before the next one is asked for."""
        driver = self._opened
        if not self._session.inbox.is_settled:
            self._session.settle(asyncio.get_running_loop().time())
            driver.pump()

    async def _meet(self, gap: Gap) -> None:
        if isinstance(self._on_gap, str):
            raise gap
        answer = self._on_gap(gap)
        if inspect.isawaitable(answer):
            await answer
        self.handled()

    async def _wait_for_more(self, driver: Driver) -> None:
        if driver.failure is not None:
            raise driver.failure
        if self._session.state is State.CLOSED:
            raise StopAsyncIteration
        await self._wait_for_change()

    # Signs of life

    async def ping(self) -> float:
        """
        Ask the server for a sign of life; the seconds until it came.

        A connection that does not answer within two seconds is given up, and
        the next one is asked; a wait between two attempts ends at once.

        Raises:
            CommandFailed: If the client is closed.
        """
        loop, session = asyncio.get_running_loop(), self._session
        started, before = loop.time(), session.pongs
        self._pings += 1
        try:
            self._check_open()
            session.probe(started)
            self._opened.pump()
            while session.pongs == before:
                await self._wait_for_change()
                self._check_open()
        finally:
            self._pings -= 1
        return loop.time() - started

    async def report_position(self) -> Position | None:
        """
        Tell the server what is handled, and wait until it knows.

        It is told by itself too, at most once a second; this is for those who
        want to be sure. The event in hand counts once :meth:`handled` was called.

        Raises:
            CommandFailed: If the client is closed.
        """
        position = self.position
        self._session.report_now(asyncio.get_running_loop().time())
        self._opened.pump()
        while self._session.reports.is_awaited:
            self._check_open()
            await self._wait_for_change()
        return position

    # What one can see

    @property
    def position(self) -> Position | None:
        """The place through which everything is handled: the one to keep."""
        return self._session.inbox.position

    @property
    def state(self) -> State:
        """Where the client stands."""
        return self._session.state

    @property
    def connected(self) -> Connected | None:
        """The server's greeting on the latest connection, with the user's id."""
        return self._session.connected

    @property
    def stats(self) -> Stats:
        """What was seen so far."""
        received = self._driver.bytes_received if self._driver else 0
        return self._session.stats(self._events, received)

    # Inside

    def _begin(self, after: str | None, *, now: float) -> Session:
        return Session(
            after=after,
            backoff=self._backoff,
            now=now,
            is_filtered=bool(self._dialing.thread_ids),
            limits=self._limits,
        )

    @property
    def _opened(self) -> Driver:
        if self._driver is None:
            raise UsageError("open the client first: async with Client(...) as client")
        return self._driver

    def _pump(self) -> None:
        self._opened.pump()

    def _check_open(self) -> None:
        if self._session.state is State.CLOSED:
            raise CommandFailed("closed", "the client is closed")

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _on_change(self) -> None:
        session = self._session
        for outcome in session.commands.outcomes():
            future = self._waiting.get(outcome.id)
            if future is not None and not future.done():
                future.set_result(outcome)
        for error in session.errors():
            logger.warning("the server answered: %s %s", error.code, error.message)
        if self._pings and session.is_open:
            session.probe(asyncio.get_running_loop().time())
        if self._keeper is not None:
            self._keeper.move(self.position)
        self._changed.set()

"""A reader with the product's own client, as an application has it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl as ssl_module
from collections.abc import Callable

from catenary.client import Client, Gap
from catenary.client.state import State
from catenary.errors import CatenaryError
from catenary.position import Position
from catenary.validate.checker import OrderingChecker
from catenary.validate.patience import until


class Follower:
    """
    One :class:`catenary.client.Client` whose every event goes to a checker.

    What :class:`Reader` sees of the wire this one sees as users do: resumed,
    without what came twice.
    """

    def __init__(
        self,
        url: str,
        user_id: str,
        checker: OrderingChecker,
        *,
        token: Callable[[], str],
        name: str,
        ssl: ssl_module.SSLContext | None,
    ) -> None:
        self.user_id = user_id
        self.name = name
        self.events = 0
        self._checker = checker
        self.client = Client(url, token=token, ssl=ssl, on_gap=self._told)
        self._task: asyncio.Task[None] | None = None
        self._place: Position | None = None

    def _told(self, gap: Gap) -> None:
        self._checker.gap(self.name, gap.after, gap.resumes_at)

    @property
    def lives(self) -> int:
        """How many connections it has had, the present one only once it is live."""
        is_live = self.client.state is State.LIVE
        return self.client.stats.connections - (0 if is_live else 1)

    async def start(self) -> None:
        """Begin to follow, and wait until it is live. Raises as :func:`until`."""
        self._task = asyncio.create_task(self._follow(), name=f"follower {self.name}")
        await until(lambda: self.client.state is State.LIVE, what=f"{self.name} is live")

    async def _follow(self) -> None:
        self._checker.begin(self.name, self.user_id)
        async with self.client:
            async for event in self.client:
                self.events += 1
                self._place = event.position
                self._checker.received(self.name, event, event.user_id or self.user_id)

    async def until_at(self, head: Position, *, timeout: float) -> None:
        """Wait until it has all through a place. Raises as :func:`until`."""

        def is_there() -> bool:
            place = self._place
            return place is not None and place.epoch == head.epoch and place.seq >= head.seq

        await until(
            is_there, what=f"{self.name} at {head} (it is at {self._place})", timeout=timeout
        )

    async def stop(self) -> None:
        """Leave."""
        if self._task is not None:
            self._task.cancel()
            # Why it stayed away shows in what it has not received.
            with contextlib.suppress(asyncio.CancelledError, CatenaryError):
                await self._task

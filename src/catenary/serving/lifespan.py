"""The life of a bridge in a server: it listens first, and opens its log behind that."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from catenary.errors import LogUnavailable
from catenary.factory import WebSocketBridgeFactory

logger = logging.getLogger("catenary.serving")

AT_ONCE_SECONDS = 0.1
"""A log that opens this fast is open before the first request comes."""
FIRST_RETRY_SECONDS = 0.2
LAST_RETRY_SECONDS = 10.0


class Lifespan:
    """
    Starts a bridge, however long its log takes to be reached; at the end stops it.

    Entering does not wait for the log: until it is there the endpoints answer
    503 and say that the bridge is starting. A failure that trying again cannot
    mend, such as a setting that is wrong, is logged and kept in
    ``factory.failure``; the bridge then stays not ready. Leaving drains.
    """

    def __init__(self, factory: WebSocketBridgeFactory) -> None:
        self._factory = factory
        self._starting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._starting = asyncio.create_task(self._start(), name="catenary start")
        await asyncio.wait([self._starting], timeout=AT_ONCE_SECONDS)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        await self._factory.stop()

    async def _start(self) -> None:
        self._factory.failure = None
        try:
            await self._start_with_patience()
        except Exception as error:
            logger.critical("the bridge cannot start: %s", error)
            self._factory.failure = error

    async def _start_with_patience(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                await self._factory.start()
            except LogUnavailable as error:
                logger.warning("the event log is not there yet, trying again: %s", error)
            else:
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY_SECONDS)

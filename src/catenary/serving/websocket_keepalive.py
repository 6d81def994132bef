"""
Pings for applications that speak plain ASGI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from catenary.serving.websocket import WebSocketProtocol


class Keepalive:
    """
    Pings a peer every ``interval`` seconds, and closes on one that is silent.

    Whatever arrives within ``timeout`` seconds of a ping is an answer. While
    reading is paused nothing can arrive, so nothing is concluded.
    """

    __slots__ = ("_interval", "_is_reading", "_protocol", "_timeout", "_timer")

    def __init__(
        self,
        protocol: WebSocketProtocol,
        interval: float,
        timeout: float | None,
        *,
        is_reading: Callable[[], bool],
    ) -> None:
        self._protocol = protocol
        self._interval = interval
        self._timeout = timeout
        self._is_reading = is_reading
        self._timer: TimerHandle = protocol.loop.call_later(interval, self._ping)

    def stop(self) -> None:
        """Ping no more."""
        self._timer.cancel()

    def _ping(self) -> None:
        loop = self._protocol.loop
        self._protocol.ping()
        if self._timeout is None:
            self._timer = loop.call_later(self._interval, self._ping)
        else:
            self._timer = loop.call_later(self._timeout, self._check, loop.time())

    def _check(self, pinged_at: float) -> None:
        if self._protocol.last_heard < pinged_at and self._is_reading():
            self._protocol.close(1011, "keepalive ping timeout")
        else:
            self._timer = self._protocol.loop.call_later(self._interval, self._ping)

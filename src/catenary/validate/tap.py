"""A tap: a connection that only keeps what comes, so that measuring costs next to nothing."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import msgspec

from catenary.client.messages import decode_message
from catenary.errors import ValidationFailed
from catenary.events import WebSocketEvent
from catenary.validate.bridges import Bridge
from catenary.validate.reader import ATTEMPT_SECONDS
from catenary.validate.scoring.received import Received
from catenary.validate.wire import Wire

_EVENT = b'"seq":'


class Tap:
    """
    One connection of one user, from its log's start; messages are read once it is over.

    It does not come back after a break, and does not check what it gets.
    """

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.events = 0
        self.wire: Wire
        self._batches: list[tuple[list[bytes], float]] = []
        self._wanted = 0
        self._there = asyncio.Event()
        self._arrivals: list[Received] | None = None

    @classmethod
    async def open(cls, bridge: Bridge, user_id: str) -> Self:
        """
        Connect.

        Raises:
            ValidationFailed: If the server refuses.
        """
        tap = cls(user_id)
        tap.wire = await Wire.open(
            bridge.websocket_url,
            tap._take,
            timeout=ATTEMPT_SECONDS,
            ssl=bridge.ssl,
            token=bridge.token(user_id),
        )
        if tap.wire.status != 101:
            raise ValidationFailed(f"{user_id} was refused with {tap.wire.status}")
        return tap

    def _take(self, _: Wire, messages: list[bytes], at: float) -> None:
        self._batches.append((messages, at))
        self.events += sum(_EVENT in message for message in messages)
        if self.events >= self._wanted:
            self._there.set()

    def say(self, message: dict[str, Any]) -> None:
        """Send one message."""
        self.wire.say(msgspec.json.encode(message).decode())

    async def until(self, events: int, *, timeout: float) -> None:
        """
        Wait until so many events are there.

        Raises:
            ValidationFailed: After ``timeout`` seconds.
        """
        self._wanted = events
        self._there.clear()
        if self.events >= events:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._there.wait()
        except TimeoutError:
            raise ValidationFailed(
                f"{self.user_id} received {self.events} of {events} events in {timeout:g} s"
            ) from None

    def leave(self) -> None:
        """Close in order."""
        self.wire.leave()

    def arrivals(self) -> list[Received]:
        """Return the events so far, each with the time of its receipt."""
        if self._arrivals is None or len(self._arrivals) < self.events:
            self._arrivals = [
                Received(event, at)
                for messages, at in self._batches
                for raw in messages
                if isinstance(event := decode_message(raw), WebSocketEvent)
            ]
        return self._arrivals

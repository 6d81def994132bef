"""
A reader of one user's log that sees everything as it comes over the wire.

It is made for validation: unlike :class:`catenary.client.Client` it drops
nothing and repairs nothing, so what a server sends twice or skips shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as ssl_module
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from urllib.parse import urlencode

import msgspec

from catenary.client.messages import (
    Closing,
    Connected,
    Control,
    GapNotice,
    Live,
    decode_message,
)
from catenary.errors import ProtocolError, ValidationFailed
from catenary.events import WebSocketEvent
from catenary.position import Position
from catenary.validate.scoring.received import Received
from catenary.validate.wire import Wire

ATTEMPT_SECONDS = 10.0
FIRST_WAIT = 0.1
LAST_WAIT = 0.5
FINAL_CODES = range(4500, 5000)
FINAL_STATUSES = frozenset({400, 401, 403, 404, 426})
SILENT_INTERVALS = 2.5


class Reader:
    """
    Reads one log from a place on, over as many connections as it takes.

    After a break it comes back after a random wait (at most 0.1 s the first
    time, then up to 0.5 s), at its last place; a server that is silent for 2.5
    of its heartbeat intervals is left. It belongs to one loop.

    Attributes:
        after: From where it was made to read.
        arrivals: The events, in the order in which they came.
        gaps: The gaps that were told.
        closings: The planned closes that were announced.
        answers: The control messages that answered something of ours.
        absences: For each loss of a live connection, the seconds until it was live again.
        reconnects: The same, counted from the last connection or attempt that broke: what
            server and reader need once the network lets them.
        faults: What no server may send, in words.
    """

    def __init__(
        self,
        url: str,
        user_id: str,
        *,
        token: Callable[[], str] | None,
        name: str | None = None,
        after: str = "start",
        thread_ids: Sequence[str] = (),
        query: Sequence[tuple[str, str]] = (),
        ssl: ssl_module.SSLContext | None = None,
        seed: str = "",
    ) -> None:
        self.url = url
        self.user_id = user_id
        self.name = name or user_id
        self._token = token
        self.after = after
        self._query = [*query, *(("thread_id", thread_id) for thread_id in thread_ids)]
        self._ssl = ssl
        self._random = Random(f"{seed} {self.name}")  # noqa: S311 - it only spreads attempts
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        self._interval = 15.0
        self._lost_at: float | None = None
        self._broke_at = 0.0
        self._stays_away = False
        self.wire: Wire | None = None
        self.place: Position | None = None
        """Through here everything has come."""
        self.connected: Connected | None = None
        self.is_live = False
        self.attempts = 0
        self.lives = 0
        """How often it was live."""
        self.arrivals: list[Received] = []
        self.gaps: list[GapNotice] = []
        self.closings: list[Closing] = []
        self.answers: list[Control] = []
        self.absences: list[float] = []
        self.reconnects: list[float] = []
        self.close_codes: list[int | None] = []
        """The code of each connection's close frame; None for one that broke."""
        self.statuses: list[int] = []
        """The HTTP status of each attempt that was refused; 0 for no answer."""
        self.faults: list[str] = []
        self.on_begin: Callable[[Position], None] | None = None
        self.on_event: Callable[[Received], None] | None = None
        self.on_gap: Callable[[GapNotice], None] | None = None

    # Life

    async def start(self, *, timeout: float = ATTEMPT_SECONDS) -> None:
        """
        Begin to read, and wait until it is live.

        Raises:
            ValidationFailed: If it is not within ``timeout`` seconds.
        """
        self.begin()
        await self.until(lambda: self.is_live, timeout=timeout, what="live")

    def begin(self) -> None:
        """Begin to read, in the background."""
        self._task = asyncio.create_task(self._read(), name=f"reader {self.name}")

    async def stop(self) -> None:
        """Leave in order."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def until(
        self, condition: Callable[[], object], *, timeout: float = 10.0, what: str = "there"
    ) -> None:
        """
        Wait until ``condition`` holds; it is looked at whenever something came.

        Raises:
            ValidationFailed: After ``timeout`` seconds; ``what`` says what was waited for.
        """
        if condition():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise ValidationFailed(
                f"{self.name} was not {what} within {timeout:g} s: it is at {self.place}, "
                f"{'live' if self.is_live else 'not live'}, with {len(self.arrivals)} events, "
                f"{self.attempts} attempts, statuses {self.statuses[-3:]}, "
                f"close codes {self.close_codes[-3:]}"
            ) from None

    async def until_events(self, count: int, *, timeout: float = 10.0) -> None:
        """Wait until it has so many events. Raises as :meth:`until`."""
        await self.until(
            lambda: len(self.arrivals) >= count, timeout=timeout, what=f"given {count} events"
        )

    async def until_greeted(self) -> None:
        """Wait for the server's first message. Raises as :meth:`until`."""
        await self.until(lambda: self.connected, what="greeted")

    def _changed(self) -> None:
        still = []
        for condition, future in self._waiting:
            if not future.done():
                if condition():
                    future.set_result(None)
                else:
                    still.append((condition, future))
        self._waiting = still

    # What it does

    def cut(self) -> None:
        """Lose the connection, as a network would; it comes back by itself."""
        if self.wire is not None:
            self.wire.abort()

    def go_offline(self) -> None:
        """Lose the connection and stay away, until :meth:`come_back`."""
        self._stays_away = True
        self.cut()

    def come_back(self) -> None:
        """Connect again after :meth:`go_offline`."""
        self._stays_away = False
        self._changed()

    def pause(self) -> None:
        """Take nothing more from the socket, until :meth:`resume`."""
        if self.wire is not None:
            self.wire.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.wire is not None:
            self.wire.transport.resume_reading()

    def say(self, message: dict[str, Any] | str | bytes) -> None:
        """Send one message; nothing while there is no connection."""
        if self.wire is not None:
            raw = msgspec.json.encode(message).decode() if isinstance(message, dict) else message
            self.wire.say(raw)

    async def ask(self, message: dict[str, Any] | str | bytes, *, timeout: float = 10.0) -> Control:
        """Send one message, and return what answers it next."""
        before = len(self.answers)
        self.say(message)
        await self.until(lambda: len(self.answers) > before, timeout=timeout, what="answered")
        return self.answers[before]

    # Reading

    async def _read(self) -> None:
        wait = FIRST_WAIT
        try:
            while True:
                await self._until_wanted()
                self.attempts += 1
                if await self._attempt():
                    wait = FIRST_WAIT
                elif self._is_refused():
                    return
                await asyncio.sleep(self._random.uniform(0, wait))
                wait = min(LAST_WAIT, wait * 2)
        finally:
            if self.wire is not None:
                self.wire.leave()
                self.wire.transport.close()

    async def _until_wanted(self) -> None:
        if self._stays_away:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((lambda: not self._stays_away, future))
            await future

    def _is_refused(self) -> bool:
        code = self.close_codes[-1] if self.close_codes else None
        return code in FINAL_CODES or bool(self.statuses and self.statuses[-1] in FINAL_STATUSES)

    async def _attempt(self) -> bool:
        """Connect and read until the end; return whether it was ever live."""
        token = None if self._token is None else self._token()
        lives = self.lives
        try:
            wire = await Wire.open(
                self._address(), self._received, timeout=ATTEMPT_SECONDS, ssl=self._ssl, token=token
            )
        except (OSError, TimeoutError):
            self._broke_at = time.perf_counter()
            self.statuses.append(0)
            self._changed()
            return False
        if wire.status != 101:
            self.statuses.append(wire.status)
            wire.transport.abort()
            self._changed()
            return False
        self.wire = wire
        try:
            await self._until_ended(wire)
        finally:
            self._note_end(wire)
        return self.lives > lives

    def _address(self) -> str:
        after = self.after if self.place is None else str(self.place)
        return f"{self.url}?{urlencode([('after', after), *self._query], safe=':')}"

    async def _until_ended(self, wire: Wire) -> None:
        while not wire.ended.done():
            silent = time.perf_counter() - wire.heard_at
            if silent > SILENT_INTERVALS * self._interval and wire.transport.is_reading():
                wire.abort()
            await asyncio.wait([wire.ended], timeout=self._interval / 2)

    def _note_end(self, wire: Wire) -> None:
        self._broke_at = wire.ended_at or time.perf_counter()
        if self.is_live or self._lost_at is None:
            self._lost_at = self._broke_at
        self.is_live = False
        self.wire = None if wire.ended.done() else self.wire
        self.close_codes.append(wire.close_code)
        if wire.fault is not None:
            self.faults.append(f"framing: {wire.fault}")
        self._changed()

    def _received(self, wire: Wire, messages: list[bytes], at: float) -> None:
        # They may come together with the answer to the handshake, before anybody knows of it.
        self.wire = wire
        for raw in messages:
            self._receive(raw, at)
        self._changed()

    def _receive(self, raw: bytes, at: float) -> None:
        try:
            message = decode_message(raw)
        except (ProtocolError, UnicodeDecodeError) as error:
            self.faults.append(f"not a message: {error}")
            self.cut()
            return
        if isinstance(message, WebSocketEvent):
            self._take(message, at)
        elif isinstance(message, Connected):
            self._greeted(message)
        elif isinstance(message, GapNotice):
            self._told(message)
        elif isinstance(message, Live):
            self._lived(at)
        elif isinstance(message, Closing):
            self.closings.append(message)
        elif type(message).__name__ not in {"Heartbeat", "Unknown"}:
            self.answers.append(message)

    def _take(self, event: WebSocketEvent, at: float) -> None:
        arrival = Received(event, at)
        self.arrivals.append(arrival)
        place = self.place
        if place is None or place.epoch != event.position.epoch or event.seq > place.seq:
            self.place = event.position
        if self.on_event is not None:
            self.on_event(arrival)

    def _greeted(self, message: Connected) -> None:
        self.connected = message
        self._interval = message.heartbeat_interval
        if self.place is None:
            self.place = Position.parse(message.after)
            if self.on_begin is not None:
                self.on_begin(self.place)

    def _told(self, gap: GapNotice) -> None:
        self.gaps.append(gap)
        epoch, seq = Position.parse(gap.resumes_at)
        self.place = Position(epoch, seq - 1)
        if self.on_gap is not None:
            self.on_gap(gap)

    def _lived(self, at: float) -> None:
        self.is_live = True
        self.lives += 1
        if self._lost_at is not None:
            self.absences.append(at - self._lost_at)
            self.reconnects.append(at - self._broke_at)
            self._lost_at = None

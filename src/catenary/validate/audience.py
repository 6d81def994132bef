"""An audience: the readers of a row, under one checker, and what producers were acknowledged."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from catenary.errors import ValidationFailed
from catenary.events import WebSocketEvent
from catenary.position import Position
from catenary.validate.bridges import Bridge, Sent
from catenary.validate.checker import OrderingChecker, Problem
from catenary.validate.follower import Follower
from catenary.validate.reader import Reader
from catenary.validate.scoring.received import Received

NOTE_TYPE = "validate.note"
"""The type of the events that a validation emits by itself."""


class Audience:
    """
    Readers of a bridge whose every event goes to one :class:`OrderingChecker`.

    It belongs to one loop; :meth:`emit` and :meth:`acknowledged` may be called
    from any thread. Leaving it stops the readers.
    """

    def __init__(self, bridge: Bridge, *, seed: str = "") -> None:
        self.bridge = bridge
        self.checker = OrderingChecker()
        self.readers: list[Reader] = []
        self.followers: list[Follower] = []
        self._seed = seed
        self._lock = threading.Lock()
        self._sent: list[tuple[str, Sent, str | None]] = []
        self._heads: dict[str, Position] = {}
        self.began_at = time.perf_counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(
            *(reader.stop() for reader in self.readers),
            *(follower.stop() for follower in self.followers),
        )

    # Readers

    def reader(
        self,
        user_id: str,
        *,
        url: str | None = None,
        name: str | None = None,
        token: Callable[[], str] | None = None,
        **options: Any,
    ) -> Reader:
        """Add a reader that has not begun; ``options`` are those of :class:`Reader`."""
        reader = Reader(
            url or self.bridge.websocket_url,
            user_id,
            token=token or (lambda: self.bridge.token(user_id)),
            name=name or f"{user_id} #{len(self.readers) + 1}",
            ssl=self.bridge.ssl,
            seed=self._seed,
            **options,
        )
        self.readers.append(reader)
        self._check(reader, is_filtered="thread_ids" in options)
        return reader

    def _check(self, reader: Reader, *, is_filtered: bool) -> None:
        if is_filtered:
            return
        checker, name = self.checker, reader.name

        def begun(place: Position) -> None:
            # Where it is told to begin proves nothing: who asks for the start is to have all.
            first = Position(place.epoch, 0) if reader.after == "start" else place
            checker.begin(name, reader.user_id, first)

        def received(arrival: Received) -> None:
            checker.received(name, arrival.event, arrival.event.user_id or reader.user_id)

        reader.on_begin, reader.on_event = begun, received
        reader.on_gap = lambda gap: checker.gap(
            name, Position.parse(gap.after), Position.parse(gap.resumes_at)
        )

    async def join(self, user_ids: Iterable[str], **options: Any) -> list[Reader]:
        """Add a reader for each of these users, and wait until all are live."""
        readers = [self.reader(user_id, **options) for user_id in user_ids]
        await asyncio.gather(*(reader.start() for reader in readers))
        return readers

    async def follow(self, user_ids: Iterable[str], *, url: str | None = None) -> list[Follower]:
        """Add a client of the product for each of these users, and wait until all are live."""
        followers = [self._follower(user_id, url) for user_id in user_ids]
        await asyncio.gather(*(follower.start() for follower in followers))
        return followers

    def _follower(self, user_id: str, url: str | None) -> Follower:
        follower = Follower(
            url or self.bridge.websocket_url,
            user_id,
            self.checker,
            token=lambda: self.bridge.token(user_id),
            name=f"{user_id} client {len(self.followers) + 1}",
            ssl=self.bridge.ssl,
        )
        self.followers.append(follower)
        return follower

    # What was emitted

    def emit(
        self,
        user_id: str,
        marker: str,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        pad: str = "",
    ) -> Sent:
        """Emit a note that the readers can be judged by. Thread-safe."""
        data = {"marker": marker, "sent_at": time.perf_counter()}
        if pad:
            data["pad"] = pad
        sent = self.bridge.emit(user_id, NOTE_TYPE, data, thread_id=thread_id, run_id=run_id)
        self.sent(user_id, sent, marker)
        return sent

    def sent(self, user_id: str, sent: Sent, marker: str | None = None) -> None:
        """Take a receipt; its outcome is asked for by :meth:`settle`. Thread-safe."""
        with self._lock:
            self._sent.append((user_id, sent, marker))

    def acknowledged(self, user_id: str, position: Position, marker: str | None = None) -> None:
        """Take note of an event that is in the log."""
        with self._lock:
            self.checker.acknowledged(user_id, position, marker)
            head = self._heads.get(user_id)
            if head is None or head.epoch != position.epoch or head.seq < position.seq:
                self._heads[user_id] = position

    async def settle(self, *, timeout: float = 20.0) -> None:
        """
        Wait until every receipt is there, and every reader at the end of its log.

        Raises:
            ValidationFailed: After ``timeout`` seconds; it says who is behind.
        """
        deadline = time.perf_counter() + timeout
        await asyncio.to_thread(self._collect, timeout)
        for reader in self.readers:
            head = self._heads.get(reader.user_id)
            if head is not None and reader.on_event is not None:
                await reader.until(
                    _has_reached(reader, head),
                    timeout=max(0.1, deadline - time.perf_counter()),
                    what=f"at {head}",
                )
        for follower in self.followers:
            head = self._heads.get(follower.user_id)
            if head is not None:
                await follower.until_at(head, timeout=max(0.1, deadline - time.perf_counter()))

    def _collect(self, timeout: float) -> None:
        with self._lock:
            sent, self._sent = self._sent, []
        for user_id, receipt, marker in sent:
            try:
                position = receipt.result(timeout)
            except TimeoutError:
                raise ValidationFailed(
                    f"an event of {user_id} was not acknowledged within {timeout:g} s"
                ) from None
            self.acknowledged(user_id, position, marker)

    # Judging

    def problems(self) -> list[Problem]:
        """Return what does not hold of the readers that are not filtered."""
        return self.checker.problems(self._heads)

    def faults(self) -> list[str]:
        """Return in words what does not hold, and what no server may send."""
        said = [str(problem) for problem in self.problems()]
        return said + [
            f"{reader.name}: {fault}" for reader in self.readers for fault in reader.faults
        ]

    @property
    def events_received(self) -> int:
        """How many events all readers have."""
        seen = sum(len(reader.arrivals) for reader in self.readers)
        return seen + sum(follower.events for follower in self.followers)

    def latencies(self, readers: Sequence[Reader] | None = None) -> list[float]:
        """Return for each note from its emission to its receipt, in seconds."""
        return [
            arrival.at - sent_at
            for reader in readers or self.readers
            for arrival in reader.arrivals
            if (sent_at := _sent_at(arrival.event)) is not None
        ]


def _has_reached(reader: Reader, head: Position) -> Callable[[], bool]:
    def has_reached() -> bool:
        place = reader.place
        return place is not None and place.epoch == head.epoch and place.seq >= head.seq

    return has_reached


def _sent_at(event: WebSocketEvent) -> float | None:
    sent_at = event.data.get("sent_at") if event.type == NOTE_TYPE else None
    return sent_at if isinstance(sent_at, float) else None

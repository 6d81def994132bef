"""A generator of load: users, threads, rates and sizes, from any process that can emit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple

import msgspec

from catenary.errors import LogFull, UsageError, ValidationFailed
from catenary.validate.bridges import Sent

Emit = Callable[[str, Mapping[str, Any]], Sent]
"""Emits one event for a user, with these data. Called on any of the generator's threads."""


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How much is emitted: ``events`` for each of ``users``.

    ``threads`` share the users among them. Each user gets bursts of ``burst``
    events, ``rate`` events a second in the mean; without a rate as fast as it
    goes. ``size_bytes`` are the bounds between which the padding of an event
    is drawn, from ``seed``.
    """

    users: list[str]
    events: int
    threads: int = 1
    burst: int = 1
    rate: float | None = None
    size_bytes: tuple[int, int] = (0, 0)
    seed: str = ""

    def __post_init__(self) -> None:
        smallest, largest = self.size_bytes
        if not self.users or min(self.events, self.threads, self.burst) < 1:
            raise UsageError("a load has users, and at least one event, thread and burst")
        if self.rate is not None and self.rate <= 0:
            raise UsageError(f"rate is a number of events a second above 0, not {self.rate!r}")
        if not 0 <= smallest <= largest:
            raise UsageError(f"size_bytes are two rising bounds, not {self.size_bytes!r}")


class Emitted(NamedTuple):
    """One event that was emitted: for whom, its marker, and its receipt."""

    user_id: str
    marker: str
    receipt: Sent


class LoadGenerator:
    """
    Emits a load from threads of its own.

    Every event's data have a ``marker``, ``<user> <number>``, by which an
    :class:`OrderingChecker` knows it, and ``sent_at``, which is
    ``time.perf_counter()`` at the call. An emit that a full log refuses is
    tried again until it is accepted, and counted in ``refusals``.
    """

    def __init__(self, load: Load, emit: Emit) -> None:
        self.load = load
        self.emitted: list[Emitted] = []
        self.refusals = 0
        self.seconds = 0.0
        self._emit = emit
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []
        self._began = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(index,), name=f"load-{index}", daemon=True)
            for index in range(load.threads)
        ]

    def start(self) -> None:
        """Begin to emit."""
        self._began = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def wait(self, timeout: float) -> None:
        """
        Wait in this thread until all is emitted.

        Raises:
            ValidationFailed: If it is not within ``timeout`` seconds, or an emit raised.
        """
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            raise ValidationFailed(f"the load was not emitted within {timeout:g} s")
        self.seconds = time.perf_counter() - self._began
        if self._failures:
            raise ValidationFailed(f"an emit raised {self._failures[0]!r}") from self._failures[0]

    def _run(self, index: int) -> None:
        load = self.load
        users = load.users[index :: load.threads]
        random = Random(f"{load.seed} {index}")  # noqa: S311 - it can be repeated by its seed
        pause = 0.0 if load.rate is None else load.burst / load.rate
        due = time.perf_counter()
        try:
            for begin in range(0, load.events, load.burst):
                for user_id in users:
                    for number in range(begin, min(load.events, begin + load.burst)):
                        self._one(user_id, number, random)
                due += pause
                wait = due - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
        except BaseException as error:
            with self._lock:
                self._failures.append(error)

    def _one(self, user_id: str, number: int, random: Random) -> None:
        marker = f"{user_id} {number}"
        pad = "x" * random.randint(*self.load.size_bytes)
        while True:
            data = {"marker": marker, "sent_at": time.perf_counter(), "pad": pad}
            try:
                receipt = self._emit(user_id, data)
            except LogFull:
                with self._lock:
                    self.refusals += 1
                time.sleep(0.001)
            else:
                self.emitted.append(Emitted(user_id, marker, receipt))
                return

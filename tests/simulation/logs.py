"""Event logs for simulated worlds: real ones whose work takes time, and which may be away."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import Protocol, Union

from catenary.errors import LogUnavailable
from catenary.eventlog.base import PAGE_BYTES, PAGE_EVENTS
from catenary.eventlog.committer.group import Group, Outcome
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import Durability, Page, Retention
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.eventlog.sqlite.places import seq_of
from catenary.eventlog.stream import Stream, Watcher
from catenary.position import Position
from tests.simulation.machine import SimulatedMachine

DELAYS = (0.0, 0.0005, 0.01, 0.3)
"""By how slow a log is: seconds before and after each look into the store."""


SlowLog = Union["SlowMemoryLog", "SlowSqliteLog"]

WORDS = frozenset({"start", "now", "open"})


class Observer(Protocol):
    """Who is shown what a log answers, as of the moment at which it looked."""

    def saw_place(self, log_id: str, place: Position) -> None:
        """It found this place for a word."""
        ...

    def saw_page(self, log_id: str, after: Position, page: Page) -> None:
        """It read this page after a place."""
        ...


class SlowMemoryLog(MemoryLog):
    """
    A ``MemoryLog`` whose reads take time, as those of a file do.

    What a read returns is as of a moment in between, so that it may be old
    already when the reader gets it. While it is away reads fail.
    """

    def __init__(
        self, *, retention: Retention, clock: Callable[[], float], delay: float, observer: Observer
    ) -> None:
        super().__init__(url="memory://?private", retention=retention, clock=clock)
        self.is_away = False
        self._delay = delay
        self._observer = observer

    async def _before(self) -> None:
        if self._delay:
            await asyncio.sleep(self._delay)
        if self.is_away:
            raise LogUnavailable("the store is away")

    async def _after(self) -> None:
        if self._delay:
            await asyncio.sleep(self._delay)

    def held(self, log_id: str) -> list[tuple[int, int]]:
        """Return the first and last number of each record in the store."""
        return [(record.first_seq, record.seq) for record in self.stream(log_id).records]

    def problem(self) -> str | None:
        """Say whether the store is away."""
        return "the store is away" if self.is_away else None

    async def watch(self, log_id: str, watcher: Watcher) -> Stream:
        """Begin to wake ``watcher``, after a while."""
        await self._before()
        stream = await super().watch(log_id, watcher)
        await self._after()
        return stream

    async def locate(self, log_id: str, after: str) -> Position:
        """Find a place, which takes a while."""
        await self._before()
        place = await super().locate(log_id, after)
        if after in WORDS:
            self._observer.saw_place(log_id, place)
        await self._after()
        return place

    async def read(
        self,
        log_id: str,
        after: Position,
        *,
        limit: int = PAGE_EVENTS,
        limit_bytes: int = PAGE_BYTES,
        thread_ids: Collection[str] | None = None,
        run_id: str | None = None,
    ) -> Page:
        """Read a page, which takes a while."""
        await self._before()
        page = await super().read(
            log_id,
            after,
            limit=limit,
            limit_bytes=limit_bytes,
            thread_ids=thread_ids,
            run_id=run_id,
        )
        self._observer.saw_page(log_id, after, page)
        await self._after()
        return page


class SlowSqliteLog(SqliteLog):
    """
    A ``SqliteLog`` whose threads take turns with the loops, and whose commits take time.

    While it is away commits and reads fail; every second commit that fails has
    been made nevertheless, as when a disk's answer is lost.
    """

    def __init__(
        self,
        path: Path,
        *,
        machine: SimulatedMachine,
        retention: Retention,
        clock: Callable[[], float],
        observer: Observer,
    ) -> None:
        self.machine: SimulatedMachine = machine
        super().__init__(path, retention=retention, durability=Durability.PROCESS, clock=clock)
        self.is_away = False
        self._observer = observer
        self._failures = 0
        self._is_unsure = False

    def _commit(self, group: Group) -> Outcome:
        machine = self.machine
        machine.sleep(machine.delay)
        if self.is_away:
            self._failures += 1
            self._is_unsure = self._failures % 2 == 1
            if not self._is_unsure:
                raise LogUnavailable("the store is away")
        outcome = super()._commit(group)
        # It is in the store, and nobody knows yet.
        machine.sleep(machine.delay)
        return outcome

    def _end_transaction(self) -> None:
        super()._end_transaction()
        if self._is_unsure:
            self._is_unsure = False
            raise sqlite3.OperationalError("disk I/O error")

    async def locate(self, log_id: str, after: str) -> Position:
        """Find a place."""
        place = await super().locate(log_id, after)
        if after in WORDS:
            self._observer.saw_place(log_id, place)
        return place

    def held(self, log_id: str) -> list[tuple[int, int]]:
        """Return the first and last number of each batch in the file."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT first_seq, place FROM batches JOIN logs ON logs.log = place >> 40 "
                "WHERE log_id = ? ORDER BY place",
                (log_id,),
            )
            return [(first, seq_of(place)) for first, place in rows]

    async def read(
        self,
        log_id: str,
        after: Position,
        *,
        limit: int = PAGE_EVENTS,
        limit_bytes: int = PAGE_BYTES,
        thread_ids: Collection[str] | None = None,
        run_id: str | None = None,
    ) -> Page:
        """Read a page."""
        if self.is_away:
            raise LogUnavailable("the store is away")
        page = await super().read(
            log_id,
            after,
            limit=limit,
            limit_bytes=limit_bytes,
            thread_ids=thread_ids,
            run_id=run_id,
        )
        self._observer.saw_page(log_id, after, page)
        return page

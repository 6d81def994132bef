"""A log in a file in virtual time: what happens while a transaction is under way can be said."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from catenary.eventlog.model import Retention
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.validate.simulation import SimulatedLoop
from tests.eventlog.support import append, event
from tests.simulation.machine import SimulatedMachine


class VirtualLog(SqliteLog):
    """
    A log whose transactions take a second, after their commit.

    The next ``unanswered`` of them are made, but fail, as when a disk's answer
    is lost.
    """

    unanswered = 0

    def __init__(self, path: Path, loop: SimulatedLoop, retention: Retention | None) -> None:
        self.machine = SimulatedMachine(loop, uniform=random.Random(1).uniform)
        super().__init__(path, retention=retention)

    def _end_transaction(self) -> None:
        super()._end_transaction()
        self.machine.sleep(1.0)
        if self.unanswered:
            self.unanswered -= 1
            raise sqlite3.OperationalError("disk I/O error")


def in_virtual_time(
    path: Path,
    work: Callable[[VirtualLog], Awaitable[None]],
    *,
    retention: Retention | None = None,
) -> None:
    """Do something with an open log that has one event."""
    loop = SimulatedLoop()
    log = VirtualLog(path, loop, retention)

    async def main() -> None:
        await log.start()
        await append(log, event(1))
        await work(log)
        await log.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())

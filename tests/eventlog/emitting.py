"""A process that emits into a SQLite log and says on its output what was acknowledged."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from catenary.errors import LogError
from catenary.eventlog.model import Durability
from catenary.eventlog.sqlite.log import SqliteLog
from tests.eventlog.support import append, event, started


def say(*words: object) -> None:
    """Write a line that arrives even if the process dies next."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def emit(path: Path, durability: str, begin: int) -> None:
    """Emit for three users at once, for ever."""
    log = SqliteLog(path, durability=Durability(durability))

    async def emit_for(user: str) -> None:
        n = begin
        while True:
            entries = [event(n + more, user=user) for more in range(3)]
            n += 3
            stream = log.stream(user)
            for receipt in [log.append(stream, entry) for entry in entries]:
                say(user, (await receipt).seq)

    await asyncio.gather(*(emit_for(f"user_{n}") for n in range(3)))


async def hold(path: Path) -> None:
    """Hold the file with an open run until the input ends."""
    log = SqliteLog(path)
    await append(log, started("held"))
    say("held")
    await asyncio.to_thread(sys.stdin.readline)


async def fill(path: Path) -> None:
    """Emit until the file may not grow, then let it grow again."""
    log = SqliteLog(path, intake_bytes=400_000, reserve_bytes=0)
    await log.start()
    acknowledged = await append(log, *(event(n, size=1000) for n in range(20)))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    stream = log.stream("user_123")
    given = []
    try:
        for n in range(20, 10_000):
            given.append(log.append(stream, event(n, size=1000)))
            await asyncio.sleep(0.001)
    except LogError as error:
        say("refused", type(error).__name__, error)
    say("problem", log.problem())
    page = await log.read("user_123", acknowledged[9])
    say("read", page.records[0].seq)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for receipt in given:
        acknowledged.append(await receipt)
    say("recovered", len(acknowledged), acknowledged[-1].seq, log.problem())
    await log.stop()


async def open_unwritable(path: Path) -> None:
    """Open a log where nothing may be written."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    log = SqliteLog(path)
    try:
        await log.start()
    except LogError as error:
        say("refused", type(error).__name__, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await log.start()
    say("opened", (await append(log, event(1)))[0].seq)
    await log.stop()


def leave(path: Path) -> None:
    """Emit without a loop, and end without stopping the log or waiting."""
    log = SqliteLog(path)
    stream = log.stream("user_123")
    for n in range(2000):
        log.append(stream, event(n))


def main() -> None:
    """Do what the arguments say."""
    what, path, *more = sys.argv[1:]
    if what == "emit":
        asyncio.run(emit(Path(path), more[0], int(more[1])))
    elif what == "leave":
        leave(Path(path))
    else:
        todo = {"hold": hold, "fill": fill, "unwritable": open_unwritable}[what]
        asyncio.run(todo(Path(path)))


if __name__ == "__main__":
    main()

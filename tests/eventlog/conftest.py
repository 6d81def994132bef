"""The logs that the contract is asked of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from catenary.eventlog.base import EventLog
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import Durability
from catenary.eventlog.nats.log import NatsLog
from catenary.eventlog.redis.log import RedisLog
from catenary.eventlog.sqlite.log import SqliteLog
from tests.eventlog.following import SharedLog
from tests.eventlog.support import Clock
from tests.nats_server import nats_url_of_its_own
from tests.redis_server import RedisServer, shared_server

OpenLog = Callable[..., Awaitable[EventLog]]
OpenShared = Callable[..., SharedLog]

KINDS = ("memory", "sqlite-power", "sqlite-process", "redis", "redis-6.2", "valkey", "nats")
REDIS_KINDS = ("redis", "redis-6.2", "valkey")


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a log in a file is."""
    return tmp_path / "events.db"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of log that is asked."""
    return str(request.param)


@pytest.fixture(params=REDIS_KINDS)
def redis(request: pytest.FixtureRequest) -> RedisServer:
    """A server without data, not to be stopped."""
    return _flushed(str(request.param))


def _flushed(kind: str) -> RedisServer:
    server = shared_server(kind)
    server.flush()
    return server


@pytest.fixture(params=(*REDIS_KINDS, "nats"))
def open_shared(request: pytest.FixtureRequest) -> OpenShared:
    """Make a log over a store that has no data; each call makes that of another process."""
    if request.param == "nats":
        return partial(NatsLog, nats_url_of_its_own())
    return partial(RedisLog, _flushed(str(request.param)).url)


@pytest_asyncio.fixture
async def open_log(kind: str, path: Path, clock: Clock) -> AsyncIterator[OpenLog]:
    """Open a log; for one in a store, what was there before is there again."""
    logs: list[EventLog] = []
    url = _flushed(kind).url if kind in REDIS_KINDS else ""
    if kind == "nats":
        url = nats_url_of_its_own()

    async def open_one(**options: Any) -> EventLog:
        log: EventLog
        if kind == "memory":
            log = MemoryLog(clock=clock, **options)
        elif kind in REDIS_KINDS:
            log = RedisLog(url, clock=clock, **options)
        elif kind == "nats":
            log = NatsLog(url, clock=clock, **options)
        else:
            durability = Durability(kind.removeprefix("sqlite-"))
            log = SqliteLog(path, durability=durability, clock=clock, patience=0.2, **options)
        await log.start()
        logs.append(log)
        return log

    yield open_one
    for log in logs:
        await log.stop()


@pytest_asyncio.fixture
async def log(open_log: OpenLog) -> EventLog:
    """A new, open log."""
    return await open_log()

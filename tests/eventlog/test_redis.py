"""What is particular to the log in Redis: many processes, and what a store may lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from catenary.errors import ConfigError, LogUnavailable
from catenary.eventlog.model import Durability
from catenary.eventlog.redis.log import RedisLog
from catenary.position import Position
from catenary.validate.chaos import CALM, ChaosProxy, Faults, Incident
from tests.eventlog.following import Follower, until
from tests.eventlog.support import (
    USER,
    Bell,
    all_records,
    append,
    event,
    numbers,
)
from tests.redis_server import RedisServer

Opened = Callable[..., Any]


@pytest_asyncio.fixture
async def nodes(redis: RedisServer) -> AsyncIterator[tuple[RedisLog, RedisLog]]:
    """Two logs over one server, as two processes have them."""
    first, second = RedisLog(redis.url, lease=1.5), RedisLog(redis.url, lease=1.5)
    await first.start()
    await second.start()
    yield first, second
    await first.stop()
    await second.stop()


# Many processes


async def test_a_wake_up_that_was_lost_is_made_up_for(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """After its live connection was cut a node compares heads, and its readers miss nothing."""
    first, second = nodes
    follower = await Follower.of(second)
    await append(first, event(0))
    await follower.reach(1)
    with redis.client() as client:
        for _ in range(5):
            client.client_kill_filter(_type="pubsub")
            await append(first, *(event(n) for n in range(20)))
    await follower.reach(101)
    assert len(follower.bodies) == 101
    assert follower.gaps == []


async def test_the_channel_is_heard_only_for_those_connected_here(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """A log's channel is left with its last reader."""
    first, _ = nodes
    one, two = Bell(), Bell()
    stream = await first.watch(USER, one)
    assert await first.watch(USER, two) is stream

    def heard() -> int:
        is_sharded = client.info()["redis_version"] >= "7"
        words = "SHARDCHANNELS" if is_sharded else "CHANNELS"
        channels: list[bytes] = client.execute_command("PUBSUB", words, "*:live:*")
        return len(channels)

    with redis.client() as client:
        assert heard() == 1
        first.unwatch(stream, one)
        first.unwatch(stream, one)
        assert heard() == 1
        first.unwatch(stream, two)
        await until(lambda: not heard())


# Runs


# Commands, what was seen, presence


# What a store may lose


async def test_a_store_that_lost_all_begins_again(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """FLUSHALL: the next events are of another term, and every reader is told by a gap."""
    first, second = nodes
    followers = [await Follower.of(node) for node in nodes]
    before = await append(first, *(event(n) for n in range(10)))
    for follower in followers:
        await follower.reach(10)
    redis.flush()
    (after,) = await append(second, event("after"))
    assert after.seq == 1
    assert after.epoch != before[0].epoch
    for follower in followers:
        async with asyncio.timeout(10):
            while not follower.gaps:
                await follower.catch_up()
                await asyncio.sleep(0.01)
        assert follower.gaps[0].reason == "epoch"
        assert follower.gaps[0].resumes_at == after
        assert follower.place == after


async def test_a_loss_is_told_without_another_event(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """Who was shown more than the store has is told as soon as heads are compared."""
    first, second = nodes
    follower = await Follower.of(second)
    await append(first, *(event(n) for n in range(5)))
    names = first.stream(USER).names
    with redis.client() as client:
        before = {name: client.dump(name) for name in (names.meta, names.stream)}
        (last, *_) = reversed(await append(first, *(event(n) for n in range(5, 10))))
        await follower.reach(10)
        for name, dumped in before.items():
            client.restore(name, 0, dumped, replace=True)
        client.client_kill_filter(_type="pubsub")
    async with asyncio.timeout(10):
        while not follower.gaps:
            await follower.catch_up()
            await asyncio.sleep(0.01)
    (gap,) = follower.gaps
    assert (gap.reason, gap.after, gap.resumes_at.seq) == ("future", last, 6)
    assert gap.resumes_at.epoch != last.epoch
    assert (await append(first, event("after")))[0] == gap.resumes_at


async def test_an_evicted_stream_is_a_gap(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """Where the store dropped events on its own account a reader is told, and numbers go on."""
    first, _ = nodes
    places = await append(first, *(event(n) for n in range(10)))
    with redis.client() as client:
        client.delete(first.stream(USER).names.stream)
    page = await first.read(USER, places[3])
    assert page.gap is not None
    assert (page.gap.reason, page.gap.resumes_at.seq) == ("retention", 11)
    (after,) = await append(first, event("after"))
    assert after == Position(places[0].epoch, 11)
    page = await first.read(USER, places[3])
    assert numbers(page.records) == ["after"]


async def test_an_evicted_meta_is_a_new_term(
    nodes: tuple[RedisLog, RedisLog], redis: RedisServer
) -> None:
    """Without its meta a log goes on after what its stream holds, in another term."""
    first, _ = nodes
    places = await append(first, *(event(n) for n in range(10)))
    with redis.client() as client:
        client.delete(first.stream(USER).names.meta)
    (after,) = await append(first, event("after"))
    assert after.seq == 11
    assert after.epoch != places[0].epoch
    page = await first.read(USER, places[3])
    assert page.gap is not None
    assert page.gap.reason == "epoch"


# A server of the test's own


@pytest.fixture
def own(tmp_path: Path) -> RedisServer:
    """A server that the test may stop; not started."""
    return RedisServer(tmp_path / "redis")


async def test_a_restart_without_persistence_is_told(own: RedisServer) -> None:
    """A server that comes back empty: events go on, in another term, and readers get a gap."""
    with own:
        log = RedisLog(own.url)
        follower = await Follower.of(log)
        before = await append(log, *(event(n) for n in range(10)))
        await follower.reach(10)
        own.kill()
        waiting = [log.append(log.stream(USER), event(n)) for n in range(10, 20)]
        await asyncio.sleep(0.3)
        assert log.problem() is not None
        own.start()
        after = [await receipt for receipt in waiting]
        assert [place.seq for place in after] == list(range(1, 11))
        assert {place.epoch for place in after} != {before[0].epoch}
        async with asyncio.timeout(10):
            while follower.place != after[-1]:
                with suppress(LogUnavailable):
                    await follower.catch_up()
                await asyncio.sleep(0.01)
        assert [gap.reason for gap in follower.gaps] == ["epoch"]
        assert log.problem() is None
        await log.stop()


async def _restarted(own: RedisServer, url: str) -> tuple[list[Position], Position, Any]:
    log = RedisLog(url)
    before = await append(log, *(event(n) for n in range(10)))
    own.kill()
    own.start()
    (after,) = await append(log, event("after"))
    page = await log.read(USER, before[4])
    end = await log.read(USER, before[9])
    assert numbers(page.records)[:5] == [5, 6, 7, 8, 9]
    await log.stop()
    return before, after, end.gap


async def test_a_restart_with_persistence_is_a_new_term(tmp_path: Path) -> None:
    """What was written on another process may lack its end: the numbering begins a new term."""
    own = RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always")
    with own:
        before, after, gap = await _restarted(own, own.url)
    assert after.seq == 11
    assert after.epoch != before[0].epoch
    assert gap.reason == "epoch"


async def test_a_restart_may_be_trusted(tmp_path: Path) -> None:
    """``trust_restart=1``: AOF always on one primary keeps the term over a restart."""
    own = RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always")
    with own:
        before, after, gap = await _restarted(own, f"{own.url}?trust_restart=1")
    assert after == Position(before[0].epoch, 11)
    assert gap is None


async def test_a_store_that_stands_still_loses_nothing(own: RedisServer) -> None:
    """Frozen for longer than the timeout: everything is committed once, in order."""
    with own:
        log = RedisLog(own.url)
        follower = await Follower.of(log)
        await append(log, event(0))
        own.freeze()
        given = []
        for n in range(1, 60):
            given.append(log.append(log.stream(USER), event(n)))
            await asyncio.sleep(0.1)
        own.thaw()
        places = [(await receipt).seq for receipt in given]
        assert places == list(range(2, 61))
        await follower.reach(60)
        assert numbers(await all_records(log)) == list(range(60))
        assert follower.gaps == []
        await log.stop()


async def test_a_lost_answer_does_not_double(own: RedisServer) -> None:
    """Connections that are cut at random bytes both ways: each event is there once, in order."""
    seed = "20261125"
    print(f"seed {seed}")
    with own:
        faults = Faults(cut=1.0, cut_within_bytes=150_000)
        async with ChaosProxy(own.port, faults=faults, seed=seed) as network:
            log = RedisLog(f"redis://127.0.0.1:{network.port}/0")
            stream = log.stream(USER)
            given = []
            for n in range(4000):
                given.append(log.append(stream, event(n, size=200)))
                if n % 100 == 99:
                    # What waits must fit through before the next cut.
                    await given[-50]
            for receipt in given:
                await receipt
            assert network.journal.count(Incident.CUT, Incident.RESET) > 5
            network.apply(CALM)
            assert numbers(await all_records(log)) == list(range(4000))
            assert [(await receipt).seq for receipt in given] == list(range(1, 4001))
            await log.stop()


# What it refuses


async def test_an_evicting_policy_is_refused(tmp_path: Path) -> None:
    """A server that may drop keys when it is full is no log."""
    options = ("--maxmemory-policy", "allkeys-lru")
    with (
        RedisServer(tmp_path / "redis", *options) as own,
        pytest.raises(ConfigError, match="noeviction"),
    ):
        await RedisLog(own.url).start()


@pytest.mark.parametrize(
    ("options", "durability"),
    [
        ((), Durability.MEMORY),
        (("--appendonly", "yes"), Durability.PROCESS),
        (("--appendonly", "yes", "--appendfsync", "always"), Durability.POWER),
    ],
)
async def test_the_durability_in_force_is_the_server_s(
    tmp_path: Path, options: tuple[str, ...], durability: Durability
) -> None:
    """It is read from the server; less than was asked for is refused."""
    with RedisServer(tmp_path / "redis", *options) as own:
        log = RedisLog(own.url)
        await log.start()
        assert log.durability is durability
        await log.stop()
        for asked in (Durability.PROCESS, Durability.POWER):
            log = RedisLog(f"{own.url}?durability={asked}")
            if durability.is_below(asked):
                with pytest.raises(ConfigError, match="appendonly"):
                    await log.start()
            else:
                await log.start()
                await log.stop()


async def test_where_config_is_forbidden_durability_is_unknown(tmp_path: Path) -> None:
    """Hosted servers forbid CONFIG: then the lowest counts, and a minimum is refused."""
    options = ("--appendonly", "yes", "--rename-command", "CONFIG", "")
    with RedisServer(tmp_path / "redis", *options) as own:
        log = RedisLog(own.url)
        await log.start()
        assert log.durability is Durability.MEMORY
        assert "unknown" in log.survives
        await log.stop()
        with pytest.raises(ConfigError, match="unknown"):
            await RedisLog(f"{own.url}?durability=process").start()


async def test_a_wrong_password_is_said_at_once(tmp_path: Path) -> None:
    """What waiting cannot mend is an error of the configuration, without the password in it."""
    with RedisServer(tmp_path / "redis") as own:
        with own.client() as client:
            client.config_set("requirepass", "secret")
        with pytest.raises(ConfigError, match="password") as refused:
            await RedisLog(own.url.replace("//", "//:wrongword@")).start()
        assert "wrongword" not in str(refused.value)
        log = RedisLog(own.url.replace("//", "//:secret@"))
        assert (await append(log, event(1)))[0].seq == 1
        await log.stop()


async def test_a_server_that_is_away_is_said() -> None:
    """It may come: trying again later may help."""
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1"):
        await RedisLog("redis://127.0.0.1:1").start()

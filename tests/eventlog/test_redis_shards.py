"""The log in several Redis that know nothing of each other."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from catenary.errors import ConfigError
from catenary.eventlog.redis.address import parse
from catenary.eventlog.redis.keys import BUCKETS, Keys
from catenary.eventlog.redis.log import RedisLog
from catenary.eventlog.redis.moving import move
from catenary.eventlog.redis.placement import shard_of_each
from catenary.position import Position
from tests.eventlog.following import Follower
from tests.eventlog.support import all_records, append, event, numbers
from tests.redis_server import RedisServer

USERS = [f"user_{n}" for n in range(30)]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Three servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(RedisServer(tmp_path / str(n))) for n in range(3)]


def url_of(servers: Sequence[RedisServer], **options: str) -> str:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    query = "&".join(f"{name}={value}" for name, value in {"shards": "1", **options}.items())
    return f"redis://{hosts}/0?{query}"


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 100])
def test_shards_have_equal_shares_and_little_moves(count: int) -> None:
    """Shares differ by one bucket; one shard more takes its share, and nothing else moves."""
    before, after = shard_of_each(count), shard_of_each(count + 1)
    sizes = Counter(before).values()
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {new for _, new in moved} == {count}
    assert len(moved) == BUCKETS // (count + 1)
    assert before[0] == 0


async def test_shards_hold_many_users(servers: list[RedisServer]) -> None:
    """Users lie on all servers; two processes write and follow all of them, live."""
    logs = [RedisLog(url_of(servers)) for _ in range(2)]
    followers = [await Follower.of(log, user) for log in logs for user in USERS]
    for n in range(3):
        await asyncio.gather(
            *(
                append(log, event([at, n], user=user), log_id=user)
                for at, log in enumerate(logs)
                for user in USERS
            )
        )
    for follower in followers:
        await follower.reach(6)
        assert len(follower.bodies) == 6
    for server in servers:
        with server.client() as client:
            assert client.dbsize() > 10
    await logs[0].sweep()
    assert await logs[0].new_term() == len(USERS)
    for log in logs:
        await log.stop()


async def test_a_shard_that_is_away_loses_nothing(servers: list[RedisServer]) -> None:
    """Events wait until it is back; then everything is there once."""
    log = RedisLog(url_of(servers))
    for user in USERS:
        await append(log, event(0, user=user), log_id=user)
    servers[1].freeze()
    given = [log.append(log.stream(user), event(1, user=user)) for user in USERS]
    await asyncio.sleep(1)
    servers[1].thaw()
    places: list[Position] = [await receipt for receipt in given]
    assert {place.seq for place in places} == {2}
    for user in USERS:
        assert numbers(await all_records(log, user)) == [0, 1]
    await log.stop()


@pytest.mark.parametrize("others", [[1, 0, 2], [0, 1], [0]])
async def test_a_shard_that_is_another_is_refused(
    servers: list[RedisServer], others: list[int]
) -> None:
    """In another order, or fewer of them, users would be looked for on other servers."""
    first = RedisLog(url_of(servers))
    await first.start()
    await first.stop()
    chosen = [servers[n] for n in others]
    url = url_of(chosen) if len(chosen) > 1 else chosen[0].url
    with pytest.raises(ConfigError, match="Name all shards in their order"):
        await RedisLog(url).start()


async def test_logs_move_to_other_servers(servers: list[RedisServer]) -> None:
    """From one to two, to three, and back to one: every event is there, and readers are told."""
    urls = [servers[0].url, url_of(servers[:2]), url_of(servers), servers[0].url]
    log = RedisLog(urls[0])
    for user in USERS:
        await append(log, event(0, user=user), log_id=user)
    for count, (source, target) in enumerate(itertools.pairwise(urls), start=1):
        places = {user: await log.head(user) for user in USERS}
        with pytest.raises(ConfigError, match="Stop every node first"):
            move(parse(source), parse(target))
        await log.stop()
        assert move(parse(source), parse(target)) > 0
        log = RedisLog(target)
        for user in USERS:
            follower = await Follower.of(log, user, after=str(places[user]))
            (place,) = await append(log, event(count, user=user), log_id=user)
            await follower.reach_place(place)
            assert len(follower.bodies) == 1
            assert {gap.reason for gap in follower.gaps} <= {"epoch"}
            assert numbers(await all_records(log, user)) == list(range(count + 1))
    await log.stop()
    for server in servers[1:]:
        with server.client() as client:
            assert client.keys("*") == []


async def test_a_move_that_was_broken_off_is_finished(servers: list[RedisServer]) -> None:
    """Nothing is lost, nobody may open the log meanwhile, and the same call again does the rest."""
    source, target = servers[0].url, url_of(servers[:2])
    log = RedisLog(source)
    for user in USERS:
        await append(log, event(0, user=user), log_id=user)
    await log.stop()
    with servers[1].client() as client:
        client.acl_setuser("default", enabled=True, commands=["-restore"])
    with pytest.raises(ConfigError, match="'restore'"):
        move(parse(source), parse(target))
    for url in (source, target):
        with pytest.raises(ConfigError, match="Finish catenary log move first"):
            await RedisLog(url).start()
    with servers[1].client() as client:
        client.acl_setuser("default", enabled=True, commands=["+restore"])
    move(parse(source), parse(target))
    log = RedisLog(target)
    for user in USERS:
        assert numbers(await all_records(log, user)) == [0]
    await log.stop()


def test_the_first_bucket_never_moves() -> None:
    """What belongs to no user, such as leases, lies there."""
    assert {shard_of_each(count)[0] for count in range(1, 65)} == {0}
    assert Keys("catenary").leases.startswith(b"catenary:{0}:")

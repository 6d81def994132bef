"""The log in Redis over Sentinel and over a cluster, with their failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from catenary.errors import ConfigError
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.log import RedisLog
from catenary.eventlog.redis.store import slot_of
from catenary.position import Position
from tests.eventlog.following import Follower, until
from tests.eventlog.support import USER, Bell, all_records, append, event, numbers
from tests.redis_server import Cluster, Watched


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A primary with a replica, watched by one sentinel."""
    with Watched(tmp_path) as started:
        yield started


@pytest.mark.slow
async def test_a_failover_by_sentinel_is_a_new_term(watched: Watched) -> None:
    """The primary is killed: the log goes on on the replica, and readers are told by a gap."""
    await asyncio.to_thread(watched.replicate)
    log = RedisLog(watched.url)
    follower = await Follower.of(log)
    before = await append(log, *(event(n) for n in range(50)))
    await follower.reach(50)
    with watched.primary.client() as client:
        assert client.execute_command("WAIT", 1, 5000) == 1
    watched.primary.kill()
    given = []
    for n in range(50, 100):
        given.append(log.append(log.stream(USER), event(n)))
        await asyncio.sleep(0.02)
    after = [await receipt for receipt in given]
    assert [place.seq for place in after] == list(range(51, 101))
    assert {place.epoch for place in after} & {before[0].epoch} == set()
    await follower.reach_place(after[-1])
    assert [gap.reason for gap in follower.gaps] == ["epoch"]
    assert numbers(await all_records(log)) == list(range(100))
    await log.stop()


@pytest.mark.slow
async def test_a_failover_that_lost_the_tail_is_told(watched: Watched) -> None:
    """What the replica never had is gone; no number of it is used for a reader that saw it."""
    await asyncio.to_thread(watched.replicate)
    log = RedisLog(watched.url)
    follower = await Follower.of(log)
    kept = await append(log, *(event(n) for n in range(50)))
    with watched.primary.client() as client:
        assert client.execute_command("WAIT", 1, 5000) == 1
    # The replica is cut off: from here on the primary acknowledges what it alone has.
    with watched.replica.client() as client:
        client.replicaof("127.0.0.1", 1)
    lost = await append(log, *(event(n) for n in range(50, 60)))
    await follower.reach(60)
    watched.primary.kill()
    (after,) = await append(log, event("after"))
    assert after.seq == 51
    assert after.epoch != kept[0].epoch
    await follower.reach_place(after)
    assert [(gap.reason, gap.after.seq, gap.resumes_at) for gap in follower.gaps] == [
        ("future", 60, after)
    ]
    page = await log.read(USER, kept[20])
    assert page.gap is None
    assert numbers(page.records) == list(range(21, 50))
    page = await log.read(USER, lost[4])
    assert page.gap is not None
    assert page.gap.reason == "future"
    await log.stop()


@pytest.mark.slow
async def test_waiting_for_a_replica(watched: Watched) -> None:
    """``wait=1``: an append is acknowledged once a replica has it, and waits while none does."""
    await asyncio.to_thread(watched.replicate)
    log = RedisLog(f"{watched.url}&wait=1")
    await append(log, event(0))
    with watched.replica.client() as client:
        assert client.xlen(log.stream(USER).names.stream) == 1
    watched.replica.freeze()
    receipt = log.append(log.stream(USER), event(1))
    async with asyncio.timeout(15):
        while "replicas" not in (log.problem() or ""):
            await asyncio.sleep(0.1)
    assert not receipt.is_settled
    watched.replica.thaw()
    assert (await receipt).seq == 2
    assert numbers(await all_records(log)) == [0, 1]
    await log.stop()


# A cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three primaries."""
    with Cluster(tmp_path) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_cluster_holds_many_users(cluster: Cluster) -> None:
    """Users lie on all nodes; two processes write and follow all of them, live."""
    logs = [RedisLog(cluster.url) for _ in range(2)]
    users = [f"user_{n}" for n in range(40)]
    with ExitStack() as stack:
        clients = [stack.enter_context(node.client()) for node in cluster.nodes]
        followers = [await Follower.of(log, user) for log in logs for user in users]
        for n in range(5):
            await asyncio.gather(
                *(
                    append(log, event([at, n], user=user), log_id=user)
                    for at, log in enumerate(logs)
                    for user in users
                )
            )
        for follower in followers:
            await follower.reach(10)
            assert len(follower.bodies) == 10
        assert all(client.dbsize() > 10 for client in clients)
        for user in users:
            assert len(await all_records(logs[0], user)) == 10
        await logs[0].sweep()
        assert await logs[0].new_term() == 40
        for log in logs:
            await log.stop()


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_node_of_a_cluster_alone_is_refused(cluster: Cluster) -> None:
    """Without ``cluster=1`` most users would be on other nodes."""
    with pytest.raises(ConfigError, match="cluster=1"):
        await RedisLog(cluster.nodes[0].url).start()


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_slot_moves_while_its_user_is_written(cluster: Cluster) -> None:
    """Resharding: events wait while keys move, and go on on the other node, none twice."""
    log = RedisLog(cluster.url)
    slot = slot_of(Keys("catenary").bucket_of(USER))
    source = cluster.of_slot(slot)
    target = next(node for node in cluster.nodes if node is not source)
    follower = await Follower.of(log)
    given = []
    moving = None
    for n in range(300):
        if n == 50:
            moving = asyncio.create_task(asyncio.to_thread(cluster.move_slot, slot, source, target))
        given.append(log.append(log.stream(USER), event(n)))
        await asyncio.sleep(0.005)
    assert moving is not None
    await moving
    places = [await receipt for receipt in given]
    assert [place.seq for place in places] == list(range(1, 301))
    await follower.reach_place(places[-1], 30.0)
    assert numbers(await all_records(log)) == list(range(300))
    assert {gap.reason for gap in follower.gaps} <= {"epoch"}
    with target.client() as client:
        assert client.xlen(log.stream(USER).names.stream) > 0
    await log.stop()


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_slot_that_moved_is_heard_on_its_new_node(cluster: Cluster) -> None:
    """Who only listens hears on at once, and does not wait until heads are compared."""
    writing, listening = RedisLog(cluster.url), RedisLog(cluster.url)
    slot = slot_of(Keys("catenary").bucket_of(USER))
    source = cluster.of_slot(slot)
    target = next(node for node in cluster.nodes if node is not source)
    bell = Bell()
    stream = await listening.watch(USER, bell)
    await append(writing, event(0))
    await until(lambda: stream.head == 1)
    await asyncio.to_thread(cluster.move_slot, slot, source, target)
    last = (await append(writing, event(1)))[-1]
    async with asyncio.timeout(10):
        while stream.position != last:
            await asyncio.sleep(0.01)
    for log in (writing, listening):
        await log.stop()


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_node_of_a_cluster_that_is_away_loses_nothing(cluster: Cluster) -> None:
    """Events wait until it is back; then everything is there once."""
    for node in cluster.nodes:
        with node.client() as client:
            client.config_set("cluster-require-full-coverage", "no")
    log = RedisLog(cluster.url)
    users = [f"user_{n}" for n in range(30)]
    for user in users:
        await append(log, event(0, user=user), log_id=user)
    cluster.nodes[1].freeze()
    given = [log.append(log.stream(user), event(1, user=user)) for user in users]
    await asyncio.sleep(2)
    cluster.nodes[1].thaw()
    places: list[Position] = [await receipt for receipt in given]
    assert {place.seq for place in places} == {2}
    for user in users:
        assert numbers(await all_records(log, user)) == [0, 1]
    await log.stop()

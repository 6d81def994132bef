"""Two servers under load over stores of several servers, of which one fails or hands over."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.store import slot_of
from catenary.validate.checker import Fault
from tests.nats_server import NatsCluster
from tests.redis_server import Cluster, Watched

from .scene import USERS, Scene, check_runs, faults

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


async def test_a_failover_by_sentinel_is_told(tmp_path: Path, stack: AsyncExitStack) -> None:
    """The primary is killed: both nodes go on on the replica, and every reader is told, once each time."""
    store = Watched(tmp_path)
    scene = Scene(tmp_path, store, query="&wait=1")
    await scene.open(stack)
    await asyncio.to_thread(store.replicate)
    await scene.start_agents(0)
    await asyncio.sleep(1)
    store.primary.kill()
    await asyncio.sleep(4)
    # With ``wait=1`` nothing is acknowledged again until there is a replica again.
    with store.replica.client() as promoted:
        assert promoted.info("replication")["role"] == "master"
    store.primary.start()
    with store.primary.client() as former:
        former.replicaof("127.0.0.1", store.replica.port)
    found = await scene.settle()
    assert faults(found) == {Fault.TOLD_LOSS}, list(map(str, found))
    for reader in scene.readers:
        assert {gap.reason for gap in reader.losses} <= {"epoch", "future"}
    check_runs(scene)


async def test_a_slot_that_moves_loses_nothing(tmp_path: Path, stack: AsyncExitStack) -> None:
    """A user's slot goes to another node of the cluster; the others notice nothing."""
    cluster = Cluster(tmp_path)
    scene = Scene(tmp_path, cluster)
    await scene.open(stack)
    await scene.start_agents(0)
    await asyncio.sleep(1)
    slot = slot_of(Keys("catenary").bucket_of(USERS[0]))
    source = cluster.of_slot(slot)
    target = next(node for node in cluster.nodes if node is not source)
    await asyncio.to_thread(cluster.move_slot, slot, source, target)
    await asyncio.sleep(1)
    found = await scene.settle()
    assert faults(found) <= {Fault.TOLD_LOSS}, list(map(str, found))
    told = {reader.user_id for reader in scene.readers if reader.losses}
    assert told <= {USERS[0]}
    check_runs(scene)


async def test_a_leader_of_nats_that_is_killed_loses_nothing(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    """Of three servers the one that leads the events' stream: another leads on, and nobody is told."""
    cluster = NatsCluster(tmp_path)
    scene = Scene(tmp_path, cluster)
    await scene.open(stack)
    await scene.start_agents(0)
    await asyncio.sleep(1)
    leader = await asyncio.to_thread(cluster.leader_of, "catenary-events")
    leader.kill()
    await asyncio.sleep(4)
    leader.begin()
    assert list(map(str, await scene.settle())) == []
    check_runs(scene)

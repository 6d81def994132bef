"""The log in a NATS cluster of three, whose servers are killed and stand still."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from catenary.errors import LogUnavailable
from catenary.eventlog.nats.address import parse
from catenary.eventlog.nats.link import Link
from catenary.eventlog.nats.log import NatsLog
from catenary.eventlog.receipt import Receipt
from tests.eventlog.following import Follower
from tests.eventlog.support import USER, all_records, append, delta, event, numbers, said, started
from tests.nats_server import NatsCluster, NatsServer

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    """Three servers that know each other."""
    with NatsCluster(tmp_path) as servers:
        yield servers


async def _opened(cluster: NatsCluster, *, lease: float = 15.0) -> NatsLog:
    """A log that is open: in a cluster that has just come, a new stream has no leader for a moment."""
    log = NatsLog(cluster.url, lease=lease)
    async with asyncio.timeout(30):
        while True:
            try:
                await log.start()
            except LogUnavailable:
                await asyncio.sleep(0.1)
            else:
                return log


async def _emit(log: NatsLog, seconds: float) -> list[Receipt]:
    given: list[Receipt] = []
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        given.append(log.append(log.stream(USER), event(len(given))))
        await asyncio.sleep(0.01)
    return given


def test_an_answer_goes_to_whoever_asked(tmp_path: Path) -> None:
    """Each first client of a server has the same number as that of the other server."""
    with NatsServer(tmp_path / "one") as one, NatsServer(tmp_path / "two") as two:
        links = [Link(parse(server.url), ("127.0.0.1", server.port)) for server in (one, two)]
        assert links[0].inbox != links[1].inbox
        for link in links:
            link.close()


async def test_the_leader_is_killed(cluster: NatsCluster) -> None:
    """The others go on: every acknowledged event is there once, in order, and nobody is told a gap."""
    logs = [await _opened(cluster, lease=60.0) for _ in range(2)]
    followers = [await Follower.of(log) for log in logs]
    await append(logs[1], started(), delta("before "))
    emitting = asyncio.create_task(_emit(logs[0], 4))
    await asyncio.sleep(1)
    leader = cluster.leader_of(logs[0].names.events_stream)
    leader.kill()
    given = await emitting
    async with asyncio.timeout(40):
        places = [await receipt for receipt in given]
    await append(logs[1], delta("after"))
    assert {place.epoch for place in places} == {places[0].epoch}
    head = await logs[1].head(USER)
    for follower in followers:
        await follower.reach_place(head, 30)
        assert follower.gaps == []
        assert len(follower.bodies) == head.seq == len(given) + 3
    records = await all_records(logs[1])
    assert [n for n in numbers(records) if n is not None] == list(range(len(given)))
    assert said(records) == "before after"
    leader.start()
    for log in logs:
        assert "the loss of 1 of 3 servers" in log.survives
        await log.stop()


@pytest.mark.slow
async def test_the_leader_stands_still(cluster: NatsCluster) -> None:
    """Frozen for five seconds, then there again: nothing is lost, doubled or told."""
    log = await _opened(cluster)
    follower = await Follower.of(log)
    emitting = asyncio.create_task(_emit(log, 8))
    await asyncio.sleep(1)
    leader = cluster.leader_of(log.names.events_stream)
    leader.freeze()
    await asyncio.sleep(5)
    leader.thaw()
    given = await emitting
    async with asyncio.timeout(40):
        places = [await receipt for receipt in given]
    assert [place.seq for place in places] == list(range(1, len(given) + 1))
    await follower.reach_place(places[-1], 30)
    assert follower.gaps == []
    assert numbers(await all_records(log)) == list(range(len(given)))
    await log.stop()


@pytest.mark.slow
async def test_all_servers_are_killed(cluster: NatsCluster) -> None:
    """What all had in memory is gone: events go on in a new term, and readers are told once."""
    log = await _opened(cluster)
    follower = await Follower.of(log)
    before = await append(log, *(event(n) for n in range(20)))
    await follower.reach(20)
    for server in cluster.servers:
        server.kill()
    waiting = log.append(log.stream(USER), event("after"))
    for server in cluster.servers:
        server.begin()
    async with asyncio.timeout(60):
        after = await waiting
    assert after.seq == 21
    assert after.epoch != before[0].epoch
    await follower.reach_place(after, 30)
    assert [gap.reason for gap in follower.gaps] == ["epoch"]
    await log.stop()

"""Heartbeats over minutes, in milliseconds: who lives stays connected, who does not is found."""

from __future__ import annotations

import time

import pytest

from catenary.validate.simulation import Link
from tests.simulation.course import world_of
from tests.simulation.schedule import After, Setup, What, Wire
from tests.simulation.world import World

INTERVAL = 15.0
MINUTES = 150.0
FOUND_AFTER = 2.5 * INTERVAL
TICK = INTERVAL / 5
"""How often a server looks at its connections."""


def opened(world: World, *readers: int) -> None:
    """Open readers' applications, and wait until they are live."""
    for reader in readers:
        world.open_app(reader, After.START)
    assert world.wait_for(lambda: all(app.is_live for app in world.apps.values()), 10.0)


def connections_made(world: World) -> list[int]:
    return [app.client.stats.connections for app in world.apps.values()]


@pytest.mark.parametrize("wire", [Wire.PLAIN, Wire.SLOW, Wire.PROXY], ids=lambda wire: wire.name)
def test_not_one_drop_in_150_idle_seconds(wire: Wire) -> None:
    """Nor through a proxy that cuts after 60 s without a byte."""
    with world_of(Setup(wire=wire)) as world:
        opened(world, 0, 1, 2)
        world.let_pass(MINUTES)
        assert connections_made(world) == [1, 1, 1]
        assert all(link.is_whole for link in world.network.links)


def test_an_hour_takes_no_time() -> None:
    """Three connections, their heartbeats and the bridge's upkeep."""
    with world_of(Setup()) as world:
        opened(world, 0, 1, 2)
        began = time.process_time()
        world.let_pass(3600.0)
        assert connections_made(world) == [1, 1, 1]
        assert time.process_time() - began < 5.0


def test_not_one_drop_in_150_busy_seconds() -> None:
    """An event each tenth of a second, large ones among them."""
    with world_of(Setup(wire=Wire.PROXY)) as world:
        opened(world, 0, 1, 3)
        for number in range(int(MINUTES * 10)):
            what = What.BIG_NOTE if number % 50 == 0 else What.DELTA
            world.producer(0).emit(what, 1)
            world.let_pass(0.1)
        world.let_pass(1.0)
        assert connections_made(world) == [1, 1, 1]
        head = world.log.stream("ada").position
        assert [app.position for app in world.apps.values()] == [head] * 3
        assert world.judge.verdict() == []


def closed_after(world: World, link: Link) -> float:
    """Return after how many seconds the server let a connection go."""
    began = world.simulation.now
    assert world.wait_for(link.server.is_closing, 100.0)
    return world.simulation.now - began


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_a_frozen_peer_is_found(is_busy: bool) -> None:
    """After two and a half intervals without a byte either way, at the looks before and after."""
    with world_of(Setup()) as world:
        opened(world, 0)
        link = world.link_of(0)
        assert link is not None
        world.simulation.freeze(world.apps[0].loop)
        if is_busy:
            world.producer(0).emit(What.HUGE_NOTE, 4)
        after = closed_after(world, link)
        assert FOUND_AFTER - INTERVAL - TICK <= after <= FOUND_AFTER + 2 * TICK


def test_a_client_finds_out_that_its_server_is_gone() -> None:
    """Half open: it hears nothing for two and a half intervals and comes back."""
    with world_of(Setup()) as world:
        opened(world, 0)
        link = world.link_of(0)
        assert link is not None
        link.lose()
        began = world.simulation.now
        assert world.wait_for(lambda: world.link_of(0) is not link, 100.0)
        assert world.simulation.now - began <= FOUND_AFTER + 1.0
        assert world.wait_for(lambda: world.apps[0].is_live, 10.0)


def test_a_slow_reader_is_not_taken_for_dead() -> None:
    """Its application takes nothing for minutes, but its process lives: it stays connected."""
    with world_of(Setup()) as world:
        opened(world, 0)
        world.apps[0].pause()
        world.producer(0).emit(What.HUGE_NOTE, 4)
        world.producer(0).emit(What.BIG_NOTE, 30)
        world.let_pass(MINUTES)
        assert connections_made(world) == [1]
        world.apps[0].resume()
        world.let_pass(1.0)
        assert world.apps[0].position == world.log.stream("ada").position


def test_a_stalled_network_is_waited_for_and_then_not() -> None:
    """What is shorter than two and a half intervals breaks nothing; what is longer does."""
    with world_of(Setup()) as world:
        opened(world, 0)
        link = world.link_of(0)
        assert link is not None
        link.stall()
        world.producer(0).emit(What.NOTE, 3)
        world.let_pass(20.0)
        link.release()
        world.let_pass(1.0)
        assert connections_made(world) == [1]
        assert world.apps[0].position == world.log.stream("ada").position
        link.stall()
        assert closed_after(world, link) <= FOUND_AFTER + INTERVAL

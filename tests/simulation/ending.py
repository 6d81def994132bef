"""How a simulated world comes to rest, and what must hold then."""

from __future__ import annotations

from catenary.client import Gap
from catenary.errors import CatenaryError, PositionLost
from catenary.eventlog.receipt import Receipt
from catenary.events import WebSocketEvent
from catenary.position import Position
from tests.simulation.judge import Kind
from tests.simulation.schedule import USERS, After, Wire
from tests.simulation.world import World

REST_SECONDS = 240.0
"""In so long everybody must have come to the head, once nothing is in the way."""

IDLE_SECONDS = 20.0
"""Longer than from one heartbeat to the next."""

PROXY_SECONDS = 70.0
"""Longer than a proxy waits for a byte."""

DEAD_SECONDS = 50.0
"""In so long a connection that is gone is taken for that."""


def come_to_rest(world: World) -> None:
    """Put everything right, and note what does not come right by itself."""
    world.stir(0)
    world.log.is_away = False
    if not world.wait_for(lambda: world.is_up, REST_SECONDS):
        world.judge.note(Kind.STUCK, "no server follows the one that ends")
        return
    world.simulation.thaw(world.bridge.loop)
    for link in world.network.links:
        link.release()
    for app in world.apps.values():
        world.simulation.thaw(app.loop)
        app.resume()
    world.look()
    for reader in list(world.kept):
        world.open_app(reader, After.LAST)
    if not world.wait_for(lambda: is_at_rest(world), REST_SECONDS):
        world.judge.note(Kind.STUCK, f"no rest: {state_of(world)}")
        return
    be_idle(world)
    read_all(world)
    end_all(world)


def is_at_rest(world: World) -> bool:
    """Whether everybody has everything, and every question its answer."""
    world.ledger.settle()
    if any(app.is_over for app in world.apps.values()):
        # Sent away by the server, for a reason that is over.
        world.look()
        for reader in list(world.kept):
            world.open_app(reader, After.LAST)
    return (
        world.is_up
        and not world.bridge.is_leaving
        and world.bridge.factory.is_started
        and not world.ledger.unsettled
        and all(
            app.is_live
            and not app.sending
            and _is_connected(world, reader)
            and app.position == world.log.stream(app.user_id).position
            for reader, app in world.apps.items()
        )
    )


def _is_connected(world: World, reader: int) -> bool:
    link = world.link_of(reader)
    return link is not None and link.is_whole


def state_of(world: World) -> str:
    """Say who waits for what."""
    readers = [
        f"{app.name} is {app.client.state} at {app.position} of "
        f"{world.log.stream(app.user_id).position}, {len(app.sending)} unanswered"
        for app in world.apps.values()
    ]
    return "; ".join([f"{world.ledger.unsettled} receipts open", *readers])


def be_idle(world: World) -> None:
    """Nothing happens for a while: nobody loses a connection, and nothing comes twice."""
    before = {app: app.client.stats.attempts for app in world.apps.values()}
    is_timed = world.setup.wire is Wire.PROXY
    world.let_pass(PROXY_SECONDS if is_timed else IDLE_SECONDS)
    world.look()
    for app, attempts in before.items():
        stats = app.client.stats
        if stats.duplicates:
            world.judge.note(Kind.DOUBLE_FRAME, f"{app.name} was sent {stats.duplicates} again")
        if stats.attempts != attempts and not world.setup.short_tokens:
            world.judge.note(Kind.RESTLESS, f"{app.name} lost its connection at rest")
    for first, second in world.ledger.repeats:
        outcomes = [_outcome(receipt) for receipt in (first, second)]
        if outcomes[0] != outcomes[1]:
            world.judge.note(Kind.UNTOLD, f"a repeat is at {outcomes[1]}, not at {outcomes[0]}")


def _outcome(receipt: Receipt) -> Position | type[CatenaryError]:
    try:
        return receipt._outcome()
    except CatenaryError as error:
        return type(error)


class LastReader:
    """Who reads what a log holds at the end, in the server's process."""

    thread_ids = ()

    def __init__(self, user_id: str) -> None:
        self.name = f"the last of {user_id}"
        self.user_id = user_id
        self.position: Position | None = None


def read_all(world: World) -> None:
    """Whoever comes last gets all that is retained; and of the runs in it all have ended."""
    supervisor = world.bridge.factory.supervisor
    if not world.wait_for(lambda: not supervisor.running, REST_SECONDS):
        world.judge.note(Kind.STUCK, f"{supervisor.running} agents do not end")
    reading = world.bridge.loop.create_task(_read_all(world))
    if not world.wait_for(reading.done, REST_SECONDS):
        world.judge.note(Kind.STUCK, "the log cannot be read")
    elif reading.exception() is not None:
        world.judge.note(Kind.ERROR, f"the log cannot be read: {reading.exception()!r}")


async def _read_all(world: World) -> None:
    factory, judge = world.bridge.factory, world.judge
    for user_id in USERS:
        reader, after = LastReader(user_id), await world.log.locate(user_id, "start")
        judge.began(reader, after)
        events: list[WebSocketEvent] = []
        while True:
            try:
                async for event in factory.events(user_id, after=after):
                    judge.received(reader, event)
                    events.append(event)
                break
            except PositionLost as lost:
                after = Position.parse(lost.resumes_at)
                resumes_at = Position(after.epoch, after.seq + 1)
                judge.gap(reader, Gap(Position.parse(lost.requested), resumes_at, lost.reason))
        judge.runs_in(events, world.runs_of_verbs)


def end_all(world: World) -> None:
    """Everybody leaves: nothing stays."""
    for app in world.apps.values():
        app.leave()
    # One that is half open is found out in two and a half heartbeats.
    world.wait_for(lambda: not _left_behind(world), DEAD_SECONDS)
    for what in _left_behind(world):
        world.judge.note(Kind.LEFT_BEHIND, what)
    world.look()
    bridge = world.bridge
    bridge.leave(lambda: None)
    if not world.wait_for(lambda: bridge.has_left, REST_SECONDS):
        world.judge.note(Kind.STUCK, "the server does not leave")


def _left_behind(world: World) -> list[str]:
    left = [f"{app.name} does not end" for app in world.apps.values() if not app.is_over]
    count = world.bridge.factory.manager.connection_count
    if count:
        left.append(f"{count} connections are known to the manager")
    left += [f"somebody watches {u}" for u in USERS if world.log.stream(u).watchers]
    return left

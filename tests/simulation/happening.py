"""How each operation of a schedule is done in a world; what cannot be done now is passed over."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from catenary.position import Position
from tests.simulation import schedule as s

if TYPE_CHECKING:
    from tests.simulation.world import World

WAITS = (0.01, 0.1, 0.5, 2.0, 6.0, 16.0, 40.0, 90.0)
"""Seconds."""

ABSENCES = (0.5, 5.0, 25.0, 70.0)
"""Seconds; the last is longer than the patience with a log."""

KEPT_BYTES = (0, 1, 100, 5000)
FORGED = Position("forged", 5)


@singledispatch
def perform(operation: s.Operation, world: World) -> None:
    """Do one operation."""
    raise TypeError(f"nobody knows how to do {operation!r}")


# Producers


@perform.register(s.Emit)
def emit(operation: s.Emit, world: World) -> None:
    if world.is_up:
        world.producer(operation.producer).emit(operation.what, operation.count)


@perform.register(s.Advance)
def advance(operation: s.Advance, world: World) -> None:
    if world.is_up:
        world.producer(operation.producer).advance(operation.step)


@perform.register(s.Agent)
def start_agent(operation: s.Agent, world: World) -> None:
    if world.is_up:
        world.producer(operation.producer).start_agent(operation.script)


# Applications


@perform.register(s.Connect)
def connect(operation: s.Connect, world: World) -> None:
    world.open_app(world.reader(operation.reader), operation.after)


@perform.register(s.Leave)
def leave(operation: s.Leave, world: World) -> None:
    app = world.apps.get(world.reader(operation.reader))
    if app is not None:
        app.leave()


@perform.register(s.Die)
def die(operation: s.Die, world: World) -> None:
    world.kill_app(world.reader(operation.reader))


@perform.register(s.Pause)
def pause(operation: s.Pause, world: World) -> None:
    app = world.apps.get(world.reader(operation.reader))
    if app is not None:
        app.pause()


@perform.register(s.Freeze)
def freeze(operation: s.Freeze, world: World) -> None:
    app = world.apps.get(world.reader(operation.reader))
    if app is not None:
        world.simulation.freeze(app.loop)


@perform.register(s.Forge)
def forge(operation: s.Forge, world: World) -> None:
    reader = world.reader(operation.reader)
    user_id = s.READERS[reader][0]
    world.kill_app(reader)
    head = world.log.stream(user_id).position
    is_known = operation.beyond and head.epoch
    beyond = Position(head.epoch, head.seq + operation.beyond) if is_known else FORGED
    world.open_app(reader, beyond)


@perform.register(s.Command)
def command(operation: s.Command, world: World) -> None:
    app = world.apps.get(world.reader(operation.reader))
    if app is not None:
        number = operation.number
        app.send(f"command {number}", {"number": number, "slow": number % 2 == 1})


@perform.register(s.CancelRun)
def cancel_run(operation: s.CancelRun, world: World) -> None:
    app = world.apps.get(world.reader(operation.reader))
    if app is not None:
        app.cancel_run(world.producer(operation.producer).run_id)


# The network


@perform.register(s.Cut)
def cut(operation: s.Cut, world: World) -> None:
    link = world.link_of(world.reader(operation.reader))
    if link is None:
        return
    if operation.how is s.Break.CUT:
        link.cut(kept_bytes=KEPT_BYTES[operation.kept % len(KEPT_BYTES)])
    else:
        link.lose()
        if operation.how is s.Break.CLIENT_ONLY:
            link.reset(link.client)
        elif operation.how is s.Break.SERVER_ONLY:
            link.reset(link.server)


@perform.register(s.Stall)
def stall(operation: s.Stall, world: World) -> None:
    link = world.link_of(world.reader(operation.reader))
    if link is not None:
        link.stall()


@perform.register(s.Release)
def release(operation: s.Release, world: World) -> None:
    reader = world.reader(operation.reader)
    app, link = world.apps.get(reader), world.link_of(reader)
    if app is not None:
        world.simulation.thaw(app.loop)
        app.resume()
    if link is not None:
        link.release()


@perform.register(s.Wait)
def wait(operation: s.Wait, world: World) -> None:
    world.let_pass(WAITS[operation.how_long % len(WAITS)])


# The server and its log


@perform.register(s.NewTerm)
def new_term(operation: s.NewTerm, world: World) -> None:
    users = [*s.USERS, None]
    world.on_server(world.log.new_term, users[operation.user % len(users)])


@perform.register(s.Sweep)
def sweep(operation: s.Sweep, world: World) -> None:
    world.on_server(world.log.sweep)


@perform.register(s.Erase)
def erase(operation: s.Erase, world: World) -> None:
    threads = ["t1", "t2", None]
    user_id = s.USERS[operation.user % len(s.USERS)]
    world.on_server(world.erase, user_id, threads[operation.thread % len(threads)])


@perform.register(s.DropTail)
def drop_tail(operation: s.DropTail, world: World) -> None:
    log = world.log
    log.drop_tail(log.stream(s.USERS[operation.user % len(s.USERS)]))


@perform.register(s.Restart)
def restart(operation: s.Restart, world: World) -> None:
    if world.is_up:
        world.stop_bridge(operation.how)


@perform.register(s.LogAway)
def log_away(operation: s.LogAway, world: World) -> None:
    world.take_log_away(ABSENCES[operation.how_long % len(ABSENCES)])


@perform.register(s.FreezeServer)
def freeze_server(operation: s.FreezeServer, world: World) -> None:
    world.freeze_bridge(ABSENCES[operation.how_long % len(ABSENCES)])


@perform.register(s.Kick)
def kick(operation: s.Kick, world: World) -> None:
    if world.is_up:
        user_id = s.USERS[operation.user % len(s.USERS)]
        world.on_server(world.bridge.factory.manager.disconnect, user_id)

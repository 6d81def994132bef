"""Everything that a shared log may ask of its store, once."""

from __future__ import annotations

import asyncio

from tests.eventlog.following import Follower, SharedLog
from tests.eventlog.support import USER, append, completed, delta, event, started, tool_started


async def exercise(log: SharedLog) -> None:
    """Use every script and call."""
    follower = await Follower.of(log)
    await append(log, started(lease=30.0), tool_started("c1"), delta("a"), event(1, key="k"))
    await log.adopt_runs(USER, ["r1"], ["k"])
    await log.request_cancel(USER, "r1")
    await append(log, started("r2"), delta("b", "r2"), delta("c", "r2"), completed("r2"))
    assert len(await log.unreported_runs(10)) == 1
    await log.mark_reported(USER, "r2")
    await log.claim_command(USER, "m1", b"x")
    await log.reclaim_command(USER, "m1")
    await log.finish_command(USER, "m1", b"y")
    await log.put("v", b"1", 10)
    await log.get("v")
    await log.take("v")
    place = await log.head(USER)
    await log.note_seen(USER, place)
    assert await log.wait_seen(USER, place, timeout=5)
    for word in ("start", "open", "now"):
        await log.locate(USER, word)
    assert len(await log.runs(USER)) == 2
    assert len(await log.find_run("r1")) == 1
    assert len(await log.open_runs()) == 1
    assert await asyncio.to_thread(log.knows_run, log.stream(USER), "r2")
    log.nodes.arrived(USER)
    log.nodes.refresh()
    await log.nodes.ask(b"?")
    await log.sweep()
    await log._close_lost_runs()
    await follower.reach(place.seq)
    await log.erase(USER, "t1")
    await log.new_term()
    await log.erase(USER)

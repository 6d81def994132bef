"""Reliability: what users see is worth seeing, comes in time, and one who fares badly harms nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from catenary.runs import Run
from catenary.validate.audience import Audience
from catenary.validate.crowd import together
from catenary.validate.field import Field
from catenary.validate.reader import Reader
from catenary.validate.results import quantile
from catenary.validate.rows import Need, Pace, Suite
from catenary.validate.scoring import UserScore, score_users
from catenary.validate.suites.expectations import until_ended

reliability = Suite(
    "reliability", "Every user sees something useful, steadily, whoever else is in trouble."
)

OWN = (Need.OWN_BRIDGE,)
SILENCE = 5.0
LATE = 1.0
"""After so many seconds a user notices the wait."""


async def _talk_well(run: Run, pace: float, rounds: int) -> None:
    """Say what a user interface wants to show, at a steady pace."""
    for number in range(rounds):
        run.thinking(f"Looking at source {number} of {rounds} for the answer", number, rounds)
        await asyncio.sleep(pace)
        async with run.tool("search", {"query": f"bridges, part {number}"}) as tool:
            await asyncio.sleep(pace)
            tool.set_result({"found": [f"a bridge of part {number}", "another bridge"]})
        await asyncio.sleep(pace)
    run.set_result({"answer": f"There are {2 * rounds} bridges that fit."})


async def _scored(
    field: Field, users: int, work: Callable[[str], Awaitable[None]]
) -> list[UserScore]:
    """Let an agent work for each user, and score what their readers saw."""
    async with field.audience() as audience:
        names = field.some_users(users)
        began = time.perf_counter()
        clock = time.time() - began
        readers = await audience.join(names)
        await together(work(user_id) for user_id in names)
        await together(until_ended(reader, 1) for reader in readers)
        field.judge(audience)
        received = [arrival for reader in readers for arrival in reader.arrivals]
        late = max(each.at + clock - each.event.timestamp / 1000 for each in received)
        field.expect(late < LATE, f"an event came {late:.1f} s late")
        scores = score_users(
            received, users=names, silence_limit=SILENCE, since=began, until=time.perf_counter()
        )
        return [scores[user_id] for user_id in names]


@reliability.row(
    "content",
    asked="5 users of an agent that says all that a page wants: every event scores 5 of 5, so nothing of it is lost",
    needs=OWN,
)
async def content(field: Field) -> str:
    async def work(user_id: str) -> None:
        async with field.own.emitter(user_id).run(agent_name="researcher", task="bridges") as run:
            await _talk_well(run, 0.002, 3)

    scores = await _scored(field, 5, work)
    weak = [str(event) for score in scores for event in score.weakest]
    lowest = min(score.content or 0.0 for score in scores)
    field.expect(not weak, f"{len(weak)} events lack something: {weak[:2]}")
    return f"{sum(score.events for score in scores)} events, {lowest:.2f} of 5 in the mean at the least"


@reliability.row(
    "timing",
    asked="5 users, an event every 50 ms: timing scores 4 or more of 5, no silence",
    needs=OWN,
)
async def timing(field: Field) -> str:
    async def work(user_id: str) -> None:
        async with field.own.emitter(user_id).run(agent_name="researcher") as run:
            await _talk_well(run, 0.05, 5)

    scores = await _scored(field, 5, work)
    lowest = min(score.timing or 0.0 for score in scores)
    field.expect(lowest >= 4, f"the lowest timing score is {lowest:.1f}")
    field.expect(not any(score.silences for score in scores), "a silence was found")
    return f"the lowest timing score is {lowest:.1f} of 5, no silence"


@reliability.row(
    "silence",
    asked="2 of 4 users hear nothing for more than 5 s while their run is open: found, per user, and no other",
    needs=OWN,
    timeout=45,
    pace=Pace.PATIENT,
)
async def silence(field: Field) -> str:
    names = field.some_users(4)
    silent = set(names[:2])

    async def work(user_id: str) -> None:
        async with field.own.emitter(user_id).run(agent_name="researcher") as run:
            run.thinking("Looking for sources that nobody has read yet")
            if user_id in silent:
                await asyncio.sleep(SILENCE + 0.3)
            else:
                await _talk_well(run, 0.3, 6)
            run.thinking("Reading what was found in the meantime")

    scores = await _scored(field, 4, work)
    found = {score.user_id for score in scores if score.silences}
    field.expect(found == silent, f"silences were found for {sorted(found)}")
    texts = [str(silence) for score in scores for silence in score.silences]
    field.expect(
        all("thinking" in text for text in texts), "a silence does not say what it lies between"
    )
    longest = max((s.seconds for score in scores for s in score.silences), default=0.0)
    return f"silent for {longest:.1f} s: {len(found)} of 4 users found, with what came before and after"


def _note_each(audience: Audience, number: int, healthy: list[Reader], ill: list[Reader]) -> None:
    for reader in (*healthy, *ill):
        pad = ILL_PAD if reader in ill else HEALTHY_PAD
        audience.emit(reader.user_id, f"{reader.user_id} {number}", pad=pad)


Trouble = Callable[[Reader, asyncio.Event], Coroutine[Any, Any, None]]
"""What befalls a reader; the event is set once the healthy ones have everything."""

ILL_PAD, HEALTHY_PAD = "x" * 40_000, "x" * 2000
"""Those who fare badly are sent more than a socket and a tail hold, so that they fall behind both."""
HELD_BYTES = 256 * 1024


async def _beside(field: Field, trouble: Trouble, what: str) -> str:
    """Let some users fare badly beside healthy ones; the latter must notice nothing."""
    async with field.audience() as audience:
        healthy = await audience.join(field.some_users(8))
        ill = await audience.join([field.user(8), field.user(9)])
        have_all = asyncio.Event()
        troubles = [asyncio.create_task(trouble(reader, have_all)) for reader in ill]
        for number in range(50):
            await asyncio.to_thread(_note_each, audience, number, healthy, ill)
            await asyncio.sleep(0.01)
        await together(reader.until_events(50) for reader in healthy)
        have_all.set()
        await together(troubles)
        await audience.settle()
        field.judge(audience)
        for reader in healthy:
            field.expect(reader.lives == 1, f"{reader.name}, healthy, lost its connection")
            field.expect(len(reader.arrivals) == 50, f"{reader.name}: {len(reader.arrivals)} of 50")
        latencies = audience.latencies(healthy)
        p99 = quantile(latencies, 0.99) * 1000
        field.latencies(latencies)
        field.expect_speed(p99 < 200, f"P99 of the healthy ones is {p99:.0f} ms")
        return f"8 healthy users beside 2 that {what}: 400 of 400 events, P99 {p99:.1f} ms"


@reliability.row(
    "slow users",
    asked="2 users stop reading until 8 healthy ones have everything: those notice nothing, all end with everything, and the server holds little meanwhile",
    needs=OWN,
)
async def slow_users(field: Field) -> str:
    async def slow(reader: Reader, have_all: asyncio.Event) -> None:
        assert reader.wire is not None
        reader.wire.take_little()
        for _round in range(2):
            reader.pause()
            await asyncio.sleep(0.15)
            reader.resume()
            await asyncio.sleep(0.02)
        reader.pause()
        await have_all.wait()
        connections = field.own.factory.manager.open_connections()
        held = max(connection.transport.buffered_bytes for connection in connections)
        field.expect(held <= HELD_BYTES, f"the server holds {held:,} bytes of one connection")
        reader.resume()

    return await _beside(field, slow, "read slowly")


@reliability.row(
    "failing users",
    asked="2 users' connections break again and again beside 8 healthy ones: those notice nothing",
)
async def failing_users(field: Field) -> str:
    async def fail(reader: Reader, _: asyncio.Event) -> None:
        for _round in range(4):
            lives = reader.lives
            reader.cut()
            await reader.until(lambda n=lives: reader.lives > n, what="live again")  # type: ignore[misc]

    return await _beside(field, fail, "lose their connections")


@reliability.row(
    "recovering users",
    asked="2 users are away and come back beside 8 healthy ones: they catch up, those notice nothing",
)
async def recovering_users(field: Field) -> str:
    async def recover(reader: Reader, _: asyncio.Event) -> None:
        reader.go_offline()
        await asyncio.sleep(0.3)
        reader.come_back()
        await reader.until(lambda: reader.is_live, what="live again")

    return await _beside(field, recover, "were away")

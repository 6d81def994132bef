"""Mobile: the networks that people carry about, with what befalls them on the way."""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left

from catenary.validate.chaos import PROFILES, Action, Profile
from catenary.validate.field import Field
from catenary.validate.rows import Need, Pace, Suite
from catenary.validate.suites.network import Network, judge_network, network

mobile = Suite(
    "mobile",
    "A phone on its way continues where it was, as soon as it has a network.",
    pace=Pace.PATIENT,
)

BACK = frozenset({Action.GO_ON, Action.ACCEPT, Action.CHANGE_ADDRESS})
"""What brings a network back."""
WITHIN = 1.0
PACE = 0.03


async def _on_the_way(field: Field, profile: Profile) -> str:
    duration = field.pick(full=60.0, quick=4.0)
    events = int(duration / PACE)
    async with network(field, profile.faults, users=2) as through:
        travelling = asyncio.create_task(_travel(through, profile, field.seed, duration))
        await through.talk(events, PACE)
        back_at = await travelling
        await through.settle(timeout=20)
        waits = [_wait_after(through, moment) for moment in back_at]
        # How long the network itself is away says nothing of a reconnect: its end counts, below.
        measured = judge_network(field, through, reconnects_within=math.inf)
        if not waits:
            return measured
        round_trip = 2 * (profile.faults.delay + profile.faults.jitter)
        worst = max(waits)
        field.figure("continues_after", worst, "s")
        # What is beyond the bound of a second is what light needs to a satellite and back.
        bound = WITHIN + max(0.0, round_trip - 0.4)
        field.expect_speed(worst <= bound, f"it continued {worst:.2f} s after the network was back")
        return f"{measured}; continued at most {worst:.2f} s after the network was back"


async def _travel(through: Network, profile: Profile, seed: str, duration: float) -> list[float]:
    """Let befall the network what the profile says; return when it came back."""
    began = time.perf_counter()
    back_at: list[float] = []
    for step in profile.script(seed, duration).steps:
        await asyncio.sleep(max(0.0, began + step.at - time.perf_counter()))
        through.proxy.apply(step.what)
        if step.what not in BACK:
            continue
        back_at.append(time.perf_counter())
        if step.what is not Action.GO_ON:
            # A phone's system ends the connections of an address that it has lost.
            for reader in through.readers:
                reader.cut()
    return back_at


def _wait_after(through: Network, moment: float) -> float:
    """Return how long it took from a moment until every reader received something."""
    waits = []
    for reader in through.readers:
        times = [arrival.at for arrival in reader.arrivals]
        index = bisect_left(times, moment)
        if index < len(times):
            waits.append(times[index] - moment)
    return max(waits, default=0.0)


def _needs(profile: Profile) -> tuple[Need, ...]:
    moves = any(Action.CHANGE_ADDRESS in (*one.begins, *one.ends) for one in profile.interruptions)
    return (Need.NETWORK, Need.ADDRESSES) if moves else (Need.NETWORK,)


def _add_profile(profile: Profile) -> None:
    @mobile.row(
        profile.name,
        asked=f"{profile.description} Every event, and on again within 1 s of the network coming back",
        needs=_needs(profile),
        timeout=60,
    )
    async def on_the_way(field: Field) -> str:
        return await _on_the_way(field, profile)


for _profile in PROFILES.values():
    _add_profile(_profile)

"""A network between a bridge and its readers, and how readers come through it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from catenary.limits import Limits
from catenary.validate.audience import Audience
from catenary.validate.bridges import Bridge
from catenary.validate.chaos import CALM, ChaosProxy, Faults, Incident
from catenary.validate.field import Field
from catenary.validate.reader import SILENT_INTERVALS, Reader
from catenary.validate.results import quantile
from catenary.validate.tls import Certificate

HEARTBEAT = 1.0
"""The interval of heartbeats in these rows, so that silence is noticed soon."""


class Network:
    """A bridge, a proxy in front of it, and readers behind that."""

    def __init__(
        self,
        bridge: Bridge,
        proxy: ChaosProxy,
        audience: Audience,
        users: list[str],
        *,
        silence: float = 0.0,
    ) -> None:
        self.bridge = bridge
        self.proxy = proxy
        self.audience = audience
        self.users = users
        self.events = 0
        """How many each user was sent."""
        self._silence = silence

    @property
    def readers(self) -> list[Reader]:
        """The readers that see the wire as it is."""
        return self.audience.readers

    async def talk(self, events: int, pause: float) -> None:
        """Emit so many more numbered events for every user, at a pace."""
        for _ in range(events):
            # Not on the loop of the network: to a bridge elsewhere each event is a round trip.
            await asyncio.to_thread(self._say, str(self.events))
            self.events += 1
            await asyncio.sleep(pause)

    def _say(self, words: str) -> None:
        for user_id in self.users:
            self.audience.emit(user_id, f"{user_id} {words}", pad="x" * 60)

    async def settle(self, *, timeout: float) -> None:
        """Wait as :meth:`Audience.settle`; where heartbeats are rare, until silence is noticed."""
        await self.audience.settle(timeout=timeout + self._silence)


@asynccontextmanager
async def network(
    field: Field,
    faults: Faults = CALM,
    *,
    users: int = 4,
    readers: int | None = None,
    certificate: Certificate | None = None,
) -> AsyncIterator[Network]:
    """
    Serve a bridge, put a network with ``faults`` before it, and connect readers through it.

    A bridge that runs elsewhere is not served anew; the network is between it and here.
    Each user has a client of the product, and the first ``readers``, by default
    all, a reader of the wire. They connect while the network is calm. At the
    end the network's doings and the readers' ways through it are evidence.
    """
    limits = Limits(heartbeat_interval=HEARTBEAT)
    async with (
        field.arranged(limits, certificate=certificate) as bridge,
        ChaosProxy(bridge.websocket_url, seed=field.seed) as proxy,
        field.audience(bridge) as audience,
    ):
        began = time.perf_counter()
        names = field.some_users(users)
        url = proxy.url_for(bridge.websocket_url)
        await audience.join(names[:readers], url=url)
        await audience.follow(names, url=url)
        silence = _silence_noticed(audience) if field.is_elsewhere else 0.0
        proxy.apply(faults)
        try:
            yield Network(bridge, proxy, audience, names, silence=silence)
        finally:
            for entry in proxy.journal.entries:
                if entry.connection is None or entry.what in _SHOWN:
                    field.happened(f"{entry.what} {entry.detail}".strip(), began + entry.at)
            field.tracks(audience)


def _silence_noticed(audience: Audience) -> float:
    """Return the seconds after which readers take a bridge for dead, by what it told them."""
    told = [reader.connected for reader in audience.readers if reader.connected is not None]
    return SILENT_INTERVALS * max(connected.heartbeat_interval for connected in told)


RECONNECTS_WITHIN = 3.0
"""Seconds, at the worst, through a network that breaks and is never away."""

_SHOWN = frozenset({Incident.CUT, Incident.RESET, Incident.HALF_OPEN, Incident.REFUSED})


def judge_network(
    field: Field, through: Network, *, reconnects_within: float = RECONNECTS_WITHIN
) -> str:
    """Expect that every reader has every event; return what was measured, with the reconnects."""
    audience = through.audience
    field.judge(audience)
    expected = through.events * (len(audience.readers) + len(audience.followers))
    got = audience.events_received
    field.expect(got == expected, f"{got} of {expected} events came")
    reconnects = [seconds for reader in through.readers for seconds in reader.reconnects]
    cuts = through.proxy.journal.count(*_SHOWN, Incident.CORRUPTED)
    text = f"{got} of {expected} events; {cuts} faults"
    if not reconnects:
        return text
    worst, median = max(reconnects), quantile(reconnects, 0.5)
    field.figure("reconnect_median", median * 1000, "ms")
    field.figure("reconnect_worst", worst, "s")
    field.expect_speed(worst <= reconnects_within, f"a reconnect took {worst:.1f} s")
    away = max(seconds for reader in through.readers for seconds in reader.absences)
    return (
        f"{text}; {len(reconnects)} reconnects, median {median * 1000:.0f} ms, worst {worst:.2f} s, "
        f"away for {away:.2f} s at most"
    )

"""The field on which a row is asked: its bridge, its seed, its scale, and what it finds."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

from catenary.errors import UsageError
from catenary.factory import WebSocketBridgeFactory
from catenary.limits import Limits
from catenary.validate.audience import Audience
from catenary.validate.bridges import Bridge, ServedBridge
from catenary.validate.results import Better, Evidence, Figure, Happening, Track, quantile
from catenary.validate.rows import Row, Scale
from catenary.validate.tls import Certificate

T = TypeVar("T")

FAULTS_SHOWN = 12
TRACK_POINTS = 400
SAMPLES_KEPT = 5000


class Field:
    """
    What a row works with, and where it says what it found.

    A row emits and reads for users whose ids begin with the row's own words,
    so that rows do not meet; ``random`` is seeded by the campaign's seed and
    the row.
    """

    def __init__(
        self, row: Row, bridge: Bridge, *, seed: str, scale: Scale, log: str, prefix: str
    ) -> None:
        self.row = row
        self.bridge = bridge
        self.scale = scale
        self.seed = f"{seed} {row.slug}"
        self.random = Random(self.seed)  # noqa: S311 - it can be repeated by its seed
        self.log = log
        """The URL of the log that further bridges of this row get."""
        self._prefix = f"{prefix}{row.slug}"
        self.faults: list[str] = []
        self.slow: list[str] = []
        self.figures: list[Figure] = []
        self.evidence = Evidence()
        self.users: list[str] = []
        self.began_at = time.perf_counter()

    # What it works with

    @property
    def own(self) -> ServedBridge:
        """
        The bridge, as one of this process.

        Raises:
            UsageError: If it runs elsewhere: the row did not say what it needs.
        """
        if not isinstance(self.bridge, ServedBridge):
            raise UsageError(
                f"{self.row.name!r} asks for a bridge of this process; say so in needs"
            )
        return self.bridge

    @property
    def is_elsewhere(self) -> bool:
        """Whether the bridge runs elsewhere: it is as it is, and each event is a round trip."""
        return not isinstance(self.bridge, ServedBridge)

    def pick(self, *, full: T, quick: T) -> T:
        """Return what fits the scale."""
        return full if self.scale is Scale.FULL else quick

    def user(self, number: int = 0) -> str:
        """Return the id of this row's user with a number."""
        user_id = f"{self._prefix}-{number}"
        if user_id not in self.users:
            self.users.append(user_id)
        return user_id

    def some_users(self, count: int) -> list[str]:
        """Return the ids of so many users."""
        return [self.user(number) for number in range(count)]

    def audience(self, bridge: Bridge | None = None) -> Audience:
        """Return an audience of a bridge, by default of the one that is validated."""
        return Audience(bridge or self.bridge, seed=self.seed)

    @asynccontextmanager
    async def served(
        self,
        *,
        log: str | None = None,
        limits: Limits | None = None,
        serve: dict[str, Any] | None = None,
        **options: Any,
    ) -> AsyncIterator[ServedBridge]:
        """
        Serve a further bridge until the block ends, with options of the factory.

        ``serve`` are options of :class:`ServedBridge`.
        """
        options = {"run_drain_timeout": 0.5, **options}
        factory = WebSocketBridgeFactory(log or "memory://?private", limits=limits, **options)
        bridge = ServedBridge(factory, **(serve or {}))
        try:
            await asyncio.to_thread(bridge.__enter__)
            yield bridge
        finally:
            await asyncio.to_thread(bridge.stop)

    @asynccontextmanager
    async def arranged(
        self, limits: Limits, *, certificate: Certificate | None = None
    ) -> AsyncIterator[Bridge]:
        """Serve a further bridge with these limits; one that runs elsewhere is given as it is."""
        if self.is_elsewhere:
            yield self.bridge
            return
        async with self.served(limits=limits, serve={"certificate": certificate}) as bridge:
            yield bridge

    @asynccontextmanager
    async def log_file(self) -> AsyncIterator[str]:
        """Give the URL of a log in a file of its own, which goes with the block."""
        with tempfile.TemporaryDirectory(prefix="catenary-validate-") as directory:
            yield f"sqlite:///{directory}/events.db"

    # What it finds

    def expect(self, condition: object, text: str) -> None:
        """Note a fault unless something holds; ``text`` says what does not."""
        if not condition:
            self.faults.append(text)

    def expect_speed(self, condition: object, text: str) -> None:
        """
        Note that a measure of time was missed, unless it holds.

        Kept apart from the faults: on a machine that others use too, time alone
        is no proof of a defect.
        """
        if not condition:
            self.slow.append(text)

    def blame(self, faults: Iterable[str]) -> None:
        """Note faults."""
        self.faults.extend(faults)

    def judge(self, audience: Audience, *, losses_are_told: bool = False) -> None:
        """Note what does not hold for the readers of an audience."""
        faults = audience.faults()
        if losses_are_told:
            faults = [fault for fault in faults if not fault.startswith("told loss")]
        self.blame(faults)

    def figure(self, name: str, value: float, unit: str, *, better: Better = Better.LOWER) -> None:
        """Note a number that reports compare."""
        self.figures.append(Figure(name=name, value=round(value, 6), unit=unit, better=better))

    def latencies(self, seconds: Iterable[float]) -> tuple[float, float, float]:
        """Note latencies and return their P50, P95 and P99, in milliseconds."""
        samples = sorted(seconds)
        if not samples:
            self.faults.append("no latency could be measured")
            return 0.0, 0.0, 0.0
        step = max(1, len(samples) // SAMPLES_KEPT)
        self.evidence.latencies += samples[::step]
        shares = [quantile(samples, share) * 1000 for share in (0.5, 0.95, 0.99)]
        for name, value in zip(("latency_p50", "latency_p95", "latency_p99"), shares, strict=True):
            self.figure(name, value, "ms")
        return shares[0], shares[1], shares[2]

    def tracks(self, audience: Audience) -> None:
        """Note where each reader stood over time."""
        for reader in audience.readers:
            points = [
                (round(arrival.at - self.began_at, 4), arrival.event.seq)
                for arrival in reader.arrivals
            ]
            step = max(1, len(points) // TRACK_POINTS)
            self.evidence.tracks.append(Track(client=reader.name, points=points[::step]))
            self.evidence.reconnects += reader.reconnects
            self.evidence.arrivals += [at for at, _ in points[:SAMPLES_KEPT]]

    def happened(self, what: str, at: float | None = None) -> None:
        """Note something that was done to the network or the server, now or at a time."""
        moment = time.perf_counter() if at is None else at
        self.evidence.happenings.append(Happening(at=round(moment - self.began_at, 4), what=what))

"""A campaign: rows, asked of a bridge one after the other, and what they found."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from catenary.errors import CatenaryError, ConfigError, RunCancelled, ValidationFailed
from catenary.factory import WebSocketBridgeFactory
from catenary.validate.bridges import Bridge, RemoteBridge, ServedBridge
from catenary.validate.field import FAULTS_SHOWN, Field
from catenary.validate.results import Outcome, Report, Verdict
from catenary.validate.rows import Need, Pace, Row, Scale, Subject, Suite
from catenary.validate.stores import LoadBalancer, NatsServer, RedisServer
from catenary.validate.surroundings import surroundings

logger = logging.getLogger("catenary.validate")

LONG_PATIENCE = 10.0
"""How much longer a row may take in a full campaign, or of a bridge that runs elsewhere."""

PATIENT_AT_ONCE = 4
"""How many rows that only wait are asked beside each other."""


class Progress(NamedTuple):
    """A row of a campaign begins (``outcome`` is None) or has ended."""

    row: Row
    outcome: Outcome | None


def chosen_rows(suites: Iterable[Suite], names: Sequence[str]) -> list[Row]:
    """
    Return the rows of the named suites, or of all.

    A name is a suite's, or ``suite:part`` for the rows with ``part`` in their name.

    Raises:
        ConfigError: If there is no such suite or row; with the names that there are.
    """
    known = {suite.name: suite for suite in suites}
    if not names:
        return [row for suite in known.values() for row in suite.rows]
    chosen: list[Row] = []
    for name in names:
        suite_name, _, part = name.partition(":")
        if suite_name not in known:
            raise ConfigError(f"no suite {suite_name!r}; there are {', '.join(known)}")
        rows = [row for row in known[suite_name].rows if part.lower() in row.name.lower()]
        if not rows:
            raise ConfigError(f"no row of {suite_name!r} has {part!r} in its name")
        chosen += [row for row in rows if row not in chosen]
    return chosen


class Campaign:
    """
    Rows to be asked of one bridge.

    ``remote`` is one that runs elsewhere; without it a bridge is served here
    for the time of the campaign, with ``log`` as its event log.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        scale: Scale = Scale.FULL,
        seed: str | None = None,
        log: str = "memory://?private",
        remote: RemoteBridge | None = None,
    ) -> None:
        self.rows = rows
        self.scale = scale
        self.seed = seed or secrets.token_hex(4)
        self.log = log
        self.remote = remote

    async def run(self, tell: Callable[[Progress], None] = lambda _: None) -> Report:
        """Ask every row, and return what was found; ``tell`` hears of each row twice."""
        began_at, began = time.time(), time.perf_counter()
        if self.remote is not None:
            outcomes = await self._ask_all(self.remote, tell)
        else:
            outcomes = await self._ask_own(tell)
        return Report(
            started_at=began_at,
            seconds=round(time.perf_counter() - began, 3),
            seed=self.seed,
            scale=str(self.scale),
            bridge=self.log if self.remote is None else self.remote.websocket_url,
            surroundings=surroundings(),
            outcomes=outcomes,
        )

    async def _ask_own(self, tell: Callable[[Progress], None]) -> list[Outcome]:
        factory = WebSocketBridgeFactory(self.log, run_drain_timeout=0.5)
        bridge = ServedBridge(factory)
        try:
            await asyncio.to_thread(bridge.__enter__)
            return await self._ask_all(bridge, tell)
        finally:
            await asyncio.to_thread(bridge.stop)

    async def _ask_all(self, bridge: Bridge, tell: Callable[[Progress], None]) -> list[Outcome]:
        """Ask the busy rows one after the other, then the patient ones a few at a time."""
        outcomes: dict[Row, Outcome] = {}

        async def one(row: Row) -> None:
            tell(Progress(row, None))
            outcome = outcomes[row] = await self._ask(row, bridge)
            tell(Progress(row, outcome))

        places = asyncio.Semaphore(PATIENT_AT_ONCE)

        async def beside_others(row: Row) -> None:
            async with places:
                await one(row)

        for row in self.rows:
            if row.pace is Pace.BUSY:
                await one(row)
        patient = [row for row in self.rows if row.pace is Pace.PATIENT]
        # The longest first, so that none of them is still at work alone at the end.
        patient.sort(key=lambda row: row.timeout, reverse=True)
        await asyncio.gather(*map(beside_others, patient))
        return [outcomes[row] for row in self.rows]

    async def _ask(self, row: Row, bridge: Bridge) -> Outcome:
        missing = missing_here(row, bridge)
        if missing:
            return _left_out(row, str(missing[0]))
        # A log that outlives this campaign must not know its users from an earlier one.
        prefix = f"validate-{secrets.token_hex(3)}-"
        field = Field(row, bridge, seed=self.seed, scale=self.scale, log=self.log, prefix=prefix)
        outcome = await ask(field)
        if self.remote is None:
            return outcome
        for user_id in field.users:
            await asyncio.to_thread(self.remote.erase, user_id)
        return _of_this_process(outcome) if row.subject is Subject.PACKAGE else outcome


def missing_here(row: Row, bridge: Bridge) -> list[Need]:
    """Return what a row needs that neither the bridge nor this machine has."""
    met = set(bridge.met)
    if Need.OWN_BRIDGE in met:
        met.add(Need.PROCESS)
        if RedisServer.is_installed():
            met.add(Need.REDIS)
        if NatsServer.is_installed():
            met.add(Need.NATS)
        if LoadBalancer.is_installed():
            met.add(Need.LOAD_BALANCER)
    return [need for need in Need if need in row.needs and need not in met]


def _left_out(row: Row, why: str) -> Outcome:
    return Outcome(
        suite=row.suite,
        row=row.name,
        asked=row.asked,
        measured="",
        verdict=Verdict.LEFT_OUT,
        faults=[why],
    )


def _of_this_process(outcome: Outcome) -> Outcome:
    told = f"asked of the package here, not of the bridge: {outcome.measured}"
    return msgspec.structs.replace(outcome, measured=told)


async def ask(field: Field) -> Outcome:
    """Ask one row; whatever it raises counts as what does not hold."""
    row = field.row
    began = time.perf_counter()
    is_long = field.scale is Scale.FULL or field.is_elsewhere
    patience = row.timeout * (LONG_PATIENCE if is_long else 1)
    measured = ""
    try:
        async with asyncio.timeout(patience):
            measured = await row.check(field)
    except TimeoutError:
        field.faults.append(f"it was not done within {patience:g} s")
    except ValidationFailed as error:
        field.faults.append(str(error))
    except CatenaryError as error:
        field.faults.append(f"{type(error).__name__}: {error}")
    except (Exception, RunCancelled) as error:  # a defect of the row or of the bridge
        logger.exception("the row %r failed", row.name)
        field.faults.append(f"the row itself failed: {error!r}")
    faults = field.faults
    shown = faults[:FAULTS_SHOWN]
    if len(faults) > len(shown):
        shown.append(f"and {len(faults) - len(shown)} more")
    return Outcome(
        suite=row.suite,
        row=row.name,
        asked=row.asked,
        measured=measured,
        verdict=Verdict.FALLS_SHORT if faults or field.slow else Verdict.HOLDS,
        faults=shown,
        slow=field.slow,
        seconds=round(time.perf_counter() - began, 3),
        figures=field.figures,
        evidence=field.evidence,
    )

"""The rows of the campaigns as tests: each is asked of a bridge, and must hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from catenary import WebSocketBridgeFactory
from catenary.validate.bridges import ServedBridge
from catenary.validate.campaign import ask, missing_here
from catenary.validate.field import Field
from catenary.validate.rows import Row, Scale, Suite
from tests.nats_server import nats_url_of_its_own
from tests.redis_server import url_of_its_own

SEED = "20261125"
MEMORY = "memory"
SQLITE = "sqlite"


def rows(*suites: Suite, but: tuple[str, ...] = ()) -> list[Any]:
    """
    Return the rows as parameters; each has the time that the row itself asks for.

    ``but`` are beginnings of names that are left out.
    """
    return [
        pytest.param(row, id=row.slug, marks=pytest.mark.timeout(row.timeout + 20))
        for suite in suites
        for row in suite.rows
        if not row.name.startswith(but)
    ]


@pytest.fixture(scope="module")
def served_in_memory() -> Iterator[ServedBridge]:
    """One bridge for the rows of a file: rows have users of their own."""
    with ServedBridge(WebSocketBridgeFactory("memory://?private", run_drain_timeout=0.5)) as bridge:
        yield bridge


@pytest.fixture(scope="module")
def served_from_a_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBridge]:
    """The same on a log in a file."""
    path = tmp_path_factory.mktemp("campaign") / "events.db"
    with ServedBridge(WebSocketBridgeFactory(f"sqlite:///{path}", run_drain_timeout=0.5)) as bridge:
        yield bridge


@pytest.fixture(scope="module", params=["redis", "nats"])
def served_on_a_shared_log(request: pytest.FixtureRequest) -> Iterator[ServedBridge]:
    """The same on a log that several processes can share."""
    url = url_of_its_own() if request.param == "redis" else nats_url_of_its_own()
    with ServedBridge(WebSocketBridgeFactory(url, run_drain_timeout=0.5)) as bridge:
        yield bridge


async def hold(row: Row, bridge: ServedBridge) -> None:
    """
    Ask a row, and fail if it does not hold.

    What is only slow is shown: on a machine that others use too, time proves no defect.
    """
    missing = missing_here(row, bridge)
    if missing:
        pytest.skip(str(missing[0]))
    field = Field(row, bridge, seed=SEED, scale=Scale.QUICK, log=bridge.factory.log.url, prefix="")
    outcome = await ask(field)
    print(f"{outcome.name}: {outcome.measured} {outcome.slow or ''}", file=sys.stderr)
    assert not outcome.faults, "\n".join(outcome.faults)

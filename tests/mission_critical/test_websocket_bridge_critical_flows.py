"""What users cannot do without: a connection that lives, and a node that dies."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.failover import failover
from catenary.validate.suites.heartbeat import heartbeat
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(heartbeat))
async def test_heartbeat(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)


@pytest.mark.parametrize("row", rows(failover))
async def test_failover(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds; it starts the nodes that it needs."""
    await hold(row, served_in_memory)

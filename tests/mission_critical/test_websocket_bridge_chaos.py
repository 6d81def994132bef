"""However the network breaks, every client ends with every event."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.chaos import chaos
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(chaos))
async def test_chaos(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)

"""Every user sees something useful, steadily, whoever else is in trouble."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.reliability import reliability
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(reliability))
async def test_reliability(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)

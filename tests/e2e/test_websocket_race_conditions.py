"""Who comes while the server starts is served, or told to come again."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.startup import startup
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(startup))
async def test_startup(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)

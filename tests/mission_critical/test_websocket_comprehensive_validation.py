"""The networks that people carry about."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.mobile import mobile
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(mobile))
async def test_mobile(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)

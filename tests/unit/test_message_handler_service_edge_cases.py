"""The service takes one manager, and names what is wrong."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.constructor import constructor
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(constructor))
async def test_constructor(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)

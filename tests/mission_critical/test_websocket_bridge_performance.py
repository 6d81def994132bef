"""Every event of a load comes, in order; how fast is shown, and measured by `catenary validate`."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.performance import performance
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(performance))
async def test_performance(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)

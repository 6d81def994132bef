"""Everything at once changes nothing for anybody."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.concurrency import concurrency
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(concurrency))
async def test_concurrency(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)


@pytest.mark.parametrize("row", rows(concurrency))
async def test_concurrency_on_a_file(row: Row, served_from_a_file: ServedBridge) -> None:
    """The row holds on a log in a file too."""
    await hold(row, served_from_a_file)

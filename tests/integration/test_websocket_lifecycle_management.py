"""A session outlives its connections."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.lifecycle import lifecycle
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(lifecycle))
async def test_lifecycle(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)


@pytest.mark.parametrize("row", rows(lifecycle))
async def test_lifecycle_on_a_file(row: Row, served_from_a_file: ServedBridge) -> None:
    """The row holds on a log in a file too."""
    await hold(row, served_from_a_file)

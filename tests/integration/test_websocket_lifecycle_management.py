"""A session outlives its connections."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.lifecycle import lifecycle
from tests.campaigns import hold, rows

SLOWEST = ("Redis 500", "Redis 1000")
"""They ask what faster ones ask too, for a minute: that is left to the command."""

OF_ANY_LOG = ("Redis", "a restart in order", "a server that lost all")
"""They start servers of their own, whatever the log of the bridge."""


@pytest.mark.parametrize("row", rows(lifecycle, but=SLOWEST))
async def test_lifecycle(row: Row, served_in_memory: ServedBridge) -> None:
    """The row of the campaign holds."""
    await hold(row, served_in_memory)


@pytest.mark.parametrize("row", rows(lifecycle, but=OF_ANY_LOG))
async def test_lifecycle_on_a_file(row: Row, served_from_a_file: ServedBridge) -> None:
    """The row holds on a log in a file too."""
    await hold(row, served_from_a_file)

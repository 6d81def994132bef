"""What the campaigns ask of a bridge holds on logs that several processes share, too."""

from __future__ import annotations

import pytest

from catenary.validate.bridges import ServedBridge
from catenary.validate.rows import Row
from catenary.validate.suites.chat import chat
from catenary.validate.suites.concurrency import concurrency
from catenary.validate.suites.isolation import isolation
from catenary.validate.suites.ordering import ordering
from tests.campaigns import hold, rows


@pytest.mark.parametrize("row", rows(ordering, isolation, concurrency, chat))
async def test_on_a_shared_log(row: Row, served_on_a_shared_log: ServedBridge) -> None:
    """The row holds."""
    await hold(row, served_on_a_shared_log)

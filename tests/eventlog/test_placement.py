"""Where the logs of many users lie, by the simulation of ``benchmarks/placement.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.server import REPOSITORY


@pytest.mark.parametrize("ids", [(), ("--numbered",)])
def test_shards_have_equal_shares_of_many_users(ids: tuple[str, ...]) -> None:
    """Of 500,000 users no shard has 5 % more than its share, and one more moves only its own."""
    command = (sys.executable, "benchmarks/placement.py", "--users", "500000", "--json", *ids)
    said = subprocess.run(command, capture_output=True, check=True, cwd=REPOSITORY).stdout
    rows: list[dict[str, Any]] = list(map(json.loads, said.splitlines()))
    of_shards = [row for row in rows if row["way"] == "shards=1"]
    assert len(of_shards) == 8
    for row in of_shards:
        assert row["most"] < 1.05, row
        assert row["moves"] < row["must"] + 0.01, row

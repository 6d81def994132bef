"""The waits between attempts."""

from __future__ import annotations

from random import Random

from catenary.client import Backoff

from .scripted import SEED


def test_bounds_double_up_to_the_cap() -> None:
    """The first wait is short; the bounds of the following double, without end."""
    backoff = Backoff(random=Random(SEED))
    bounds = []
    for _ in range(2_000):
        bounds.append(backoff.bound)
        assert 0 <= backoff.next_wait() <= bounds[-1]
    assert bounds[:8] == [0.1, 0.5, 1, 2, 4, 8, 10, 10]
    assert bounds[-1] == 10
    backoff.ease()
    assert backoff.bound == 0.5
    backoff.reset()
    assert backoff.bound == 0.1
    backoff.ease()
    assert backoff.bound == 0.1


def test_waits_are_spread_evenly() -> None:
    """Clients that were cut together do not come back together."""
    backoffs = [Backoff(random=Random(SEED + n)) for n in range(1_000)]
    waits = sorted(backoff.next_wait() for backoff in backoffs)
    quarters = [sum(low <= wait < low + 0.025 for wait in waits) for low in (0, 0.025, 0.05, 0.075)]
    assert all(200 <= quarter <= 300 for quarter in quarters)

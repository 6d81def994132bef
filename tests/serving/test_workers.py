"""Several workers: when one that ended is replaced. What they do together is in tests/e2e."""

from __future__ import annotations

from catenary.serving.workers import PAUSE_LIMIT, pause_before_life


def test_one_that_lived_is_replaced_at_once() -> None:
    """And one that does not live long waits for longer each time, up to a limit."""
    pauses = [pause_before_life(short_lives) for short_lives in range(12)]
    assert pauses[0] == 0
    assert pauses[1] == 0.5
    assert pauses == sorted(pauses)
    assert pauses[-1] == PAUSE_LIMIT

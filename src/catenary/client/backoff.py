"""How long to wait before the next attempt to connect."""

from __future__ import annotations

from random import Random

EASED_WAITS = 1


class Backoff:
    """
    The waits of one client, in seconds.

    The first after a connection that held is short, so that one cut is hardly
    felt; the following ones are drawn evenly from zero up to a bound that
    doubles, so that the clients of a server that went away do not come back in
    step. A connection that was live, however short, proves that the server is
    there: from then on the bound begins at half a second.
    """

    def __init__(
        self, *, first: float = 0.1, base: float = 0.25, cap: float = 10.0, random: Random
    ) -> None:
        self._first = first
        self._base = base
        self._cap = cap
        self._random = random
        self._waits = 0

    @property
    def bound(self) -> float:
        """The longest that the next wait can be."""
        if self._waits == 0:
            return self._first
        # The exponent is bounded too: 2.0 ** 2000 would overflow after a long outage.
        return min(self._cap, self._base * 2.0 ** min(self._waits, 64))

    def next_wait(self) -> float:
        """Draw the next wait, and count it."""
        wait = self._random.uniform(0.0, self.bound)
        self._waits += 1
        return wait

    def count(self) -> None:
        """Count a wait whose length the server chose."""
        self._waits += 1

    def ease(self) -> None:
        """Take back what the waits have grown to: a connection was live for a moment."""
        self._waits = min(self._waits, EASED_WAITS)

    def reset(self) -> None:
        """Begin anew: a connection held."""
        self._waits = 0

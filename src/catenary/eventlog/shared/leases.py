"""
Leases: how processes that share a store know which of them live.

Pure: times come in as values, from one steady clock of this process.
"""

from __future__ import annotations

LEASE_SECONDS = 15.0
RENEWALS = 3
"""How often a lease is renewed while it lasts."""


class Lease:
    """
    This process's lease, and since when it could see those of others.

    Nobody may declare a lease lost before having been connected to the store
    for a whole lease, so that an outage ends no run.
    """

    def __init__(self, seconds: float = LEASE_SECONDS) -> None:
        self.seconds = seconds
        self.renew_seconds = seconds / RENEWALS
        self._renewed_at: float | None = None
        self._seen_since: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether the lease is to be renewed."""
        return self._renewed_at is None or now - self._renewed_at >= self.renew_seconds

    def due_in(self, now: float) -> float:
        """Return after how many seconds the lease is to be renewed."""
        return 0.0 if self._renewed_at is None else self._renewed_at + self.renew_seconds - now

    def renewed(self, now: float) -> None:
        """The store has the lease from now on."""
        if self._seen_since is None or self.is_lost(now):
            self._seen_since = now
        self._renewed_at = now

    def is_lost(self, now: float) -> bool:
        """Whether others may have declared this process dead."""
        return self._renewed_at is None or now - self._renewed_at > self.seconds

    def interrupted(self) -> None:
        """The store was away, or is another one: what it says of others may be old."""
        self._seen_since = None
        self._renewed_at = None

    def may_judge(self, now: float) -> bool:
        """Whether what the store says of others' leases counts."""
        return self._seen_since is not None and now - self._seen_since > self.seconds

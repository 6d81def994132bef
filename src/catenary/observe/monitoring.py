"""What the monitors of a live bridge look for."""

from __future__ import annotations

import msgspec


class Monitoring(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the monitors of a live bridge look for, and from where on they warn. Times in seconds.

    Attributes:
        connections: How many connections are looked at closely at a time; 0 for none.
        sample_time: After so long others are.
        interval: How often everything is looked at.
        silence: An open run that says nothing for longer is silent.
        latency: An event that is written later than this after its emission is late.
        drops: So many connections must break within ``drop_window`` before it is worth a word,
        drop_share: and such a part of all.
        drop_window: Over how long connections that break are counted.
        runs_per_user: A user with so many open runs is unusual.
        connection_share: And one that has such a part of the connections that a user may have.
        intake_share: An intake that is used to such a part is nearly full.
        repeat: The same warning of the same user, run or connection comes not sooner again.
    """

    connections: int = 8
    sample_time: float = 30.0
    interval: float = 5.0
    silence: float = 60.0
    latency: float = 1.0
    drops: int = 10
    drop_share: float = 0.2
    drop_window: float = 60.0
    runs_per_user: int = 20
    connection_share: float = 0.8
    intake_share: float = 0.8
    repeat: float = 300.0


MONITORING = Monitoring()
"""What is looked for unless something else was said."""

"""
Places in a user's event log.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from catenary.errors import UsageError

_POSITION = re.compile(r"([A-Za-z0-9]{1,16}):(0|[1-9][0-9]{0,15})", re.ASCII)


class Position(NamedTuple):
    """
    A place in one log: just after the event with this ``seq``.

    ``seq`` is dense within an ``epoch``; an epoch names one unbroken term of a
    log's numbering, so positions are compared only within one epoch. ``seq``
    0 is the place before the first event.
    """

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """
        Read ``<epoch>:<seq>``.

        Raises:
            UsageError: If the text is not a position. It says what one looks like.
        """
        match = _POSITION.fullmatch(text)
        if match is None:
            raise UsageError(f"not a position: {text[:40]!r}; one looks like 'k3:57'")
        return cls(match[1], int(match[2]))

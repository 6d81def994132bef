"""Warnings in the log, so few that they are read."""

from __future__ import annotations

import logging
from collections import defaultdict

logger = logging.getLogger("catenary.monitor")

OF_A_KIND = 5
"""So many subjects of one kind are named within the time of a repeat."""
COUNTED = 1000
"""So many of those that are not named are counted."""


class Alarms:
    """
    Says the same of the same subject once within ``repeat`` seconds.

    Of one kind at most :data:`OF_A_KIND` subjects are named in that time; the
    next warning of the kind says how many were not. Times are monotonic.
    """

    def __init__(self, repeat: float) -> None:
        self._repeat = repeat
        self._said: dict[tuple[str, str], float] = {}
        self._unnamed: defaultdict[str, set[str]] = defaultdict(set)

    def is_due(self, kind: str, subject: str, now: float) -> bool:
        """Whether a warning would be logged; if it is one too many, it is counted."""
        self._said = {key: at for key, at in self._said.items() if now - at < self._repeat}
        if (kind, subject) in self._said:
            return False
        if sum(other == kind for other, _ in self._said) < OF_A_KIND:
            return True
        if len(self._unnamed[kind]) < COUNTED:
            self._unnamed[kind].add(subject)
        return False

    def warn(self, kind: str, subject: str, now: float, text: str, **ids: str | None) -> None:
        """Log a warning about a subject if it is due; ``ids`` become attributes of the record."""
        if not self.is_due(kind, subject, now):
            return
        self._said[kind, subject] = now
        others = self._unnamed.pop(kind, set()) - {subject}
        more = f" ({len(others)} more of this kind were not logged)" if others else ""
        present = {name: value for name, value in ids.items() if value is not None}
        logger.warning("%s%s", text, more, extra=present)

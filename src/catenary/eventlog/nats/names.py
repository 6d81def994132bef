"""
The names of a log's streams and subjects.

An id becomes one token of a subject, percent-encoded, so no id reaches
another's subject. A long id becomes a digest; what is stored names it in full.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

TOKEN_LIMIT = 120


@lru_cache(4096)
def token(name: str) -> str:
    """Return an id as a token."""
    text = quote(name, safe="").replace(".", "%2E").replace("~", "%7E")
    if 0 < len(text) <= TOKEN_LIMIT:
        return text
    return "~" + hashlib.sha256(name.encode()).hexdigest()


class LogNames(NamedTuple):
    """The subjects of one log; those of many things end with a dot, before a token."""

    events: str
    """The batches as they were appended. The last one holds the log's state."""
    rewritten: str
    """The batches that compaction and erasing put in the place of others, by generation."""
    runs: str
    """What is known of each run."""
    ends: str
    """The ended runs that nobody was told of."""
    folds: str
    """What was folded of runs whose first events are gone."""
    known: str
    """The idempotency keys."""
    commands: str
    """The claimed messages of clients."""
    reports: str
    """Who tells of an ended run."""
    dues: str
    """What somebody must look at later."""
    seen: str
    """The place that was seen."""
    live: str
    """Where what is committed is published."""


class Names:
    """The names under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.events_stream = f"{prefix}-events"
        self.values_stream = f"{prefix}-values"
        self.leases_stream = f"{prefix}-leases"
        self.life = f"{prefix}.life"
        """Something that only memory holds: if it is lost, more may be."""
        self.duty = f"{prefix}.duty"
        """Who looks after what is nobody's: one process at a time."""
        self.leases = f"{prefix}.l."
        self.nodes = f"{prefix}.nodes"
        """What is said to every process."""

    def of_log(self, log_id: str) -> LogNames:
        """Return the subjects of a log."""
        return self.of_token(token(log_id))

    def of_token(self, name: str) -> LogNames:
        """Return the subjects of the log whose id has a token."""
        p = self._prefix
        return LogNames(
            f"{p}.e.{name}",
            f"{p}.z.{name}.",
            f"{p}.r.{name}.",
            f"{p}.n.{name}.",
            f"{p}.f.{name}.",
            f"{p}.k.{name}.",
            f"{p}.c.{name}.",
            f"{p}.w.{name}.",
            f"{p}.t.{name}.",
            f"{p}.s.{name}",
            f"{p}.live.{name}",
        )

    def value(self, key: str) -> str:
        """Return the subject of a value that is no log's, such as a ticket."""
        return f"{self._prefix}.v.{token(key)}"

    def holding(self, holder: str, log_id: str) -> str:
        """Return the subject that says that a process may hold runs of a log."""
        return f"{self._prefix}.o.{holder}.{token(log_id)}"

    def presence(self, user_id: str) -> str:
        """Return the subject on which the processes answer that a user is connected to."""
        return f"{self._prefix}.on.{token(user_id)}"

    def node(self, holder: str) -> str:
        """Return the subject of what is said to one process."""
        return f"{self._prefix}.node.{holder}"

    def every(self, kind: str, *rest: str) -> str:
        """Return the filter for one kind of subject of all logs."""
        return ".".join((self._prefix, kind, *rest))

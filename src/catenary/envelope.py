"""
Envelopes: the fields that the events of one emitter or run share, encoded once.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import msgspec

from catenary.encoding import encode


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose events, of which thread, run and agent."""

    user_id: str
    thread_id: str | None = None
    run_id: str | None = None
    agent_name: str | None = None
    parent_run_id: str | None = None

    @property
    def head(self) -> bytes:
        """The JSON of a record's body up to the value of ``timestamp``."""
        fields = {
            "user_id": self.user_id,
            "thread_id": self.thread_id,
            "run_id": self.run_id,
            "agent_name": self.agent_name,
            "parent_run_id": self.parent_run_id,
        }
        present = encode({key: value for key, value in fields.items() if value is not None})
        return present[1:-1] + b',"timestamp":'

    def body(self, timestamp: int, data: bytes) -> bytes:
        """Return a record's body; ``data`` is JSON, ``timestamp`` in ms since 1970."""
        return b'%b%d,"data":%b}' % (self.head, timestamp, data)

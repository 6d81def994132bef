"""
The names of a log's keys.

A log belongs to one of 1,024 buckets, by a hash of its id that never changes.
All keys of a bucket share one hash tag, so they lie on one node of a cluster and
one script may touch them. An id stands at the end of its key, percent-encoded,
so no id can reach another's key.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple
from urllib.parse import quote

BUCKETS = 1024


class LogKeys(NamedTuple):
    """The keys of one log, and its channel."""

    meta: bytes
    """Hash: epoch, head, sizes, who holds the open runs."""
    stream: bytes
    """Stream: the batches as they were appended; an entry's id is its last ``seq``."""
    rewritten: bytes
    """Sorted set: the batches that compaction and erasing put in the place of others."""
    runs: bytes
    """Hash: what is known of each run."""
    known: bytes
    """Hash: the idempotency keys."""
    commands: bytes
    """Hash: the claimed messages of clients."""
    channel: bytes


class Keys:
    """The keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        # What belongs to no log lies in the first bucket.
        self.leases = self.of_bucket(0, "leases")
        """Sorted set: the processes that live, by when their lease ends."""
        self.duty = self.of_bucket(0, "duty")
        """Who looks after what is nobody's: one process at a time."""
        self.mark = f"{prefix}:shard".encode()
        """On each of several servers that share the buckets: which of how many it is."""
        self.nodes_channel = f"{prefix}:nodes".encode()

    def node_channel(self, holder: str) -> bytes:
        """Return the channel of one process."""
        return f"{self._prefix}:node:{holder}".encode()

    def bucket_of(self, name: str) -> int:
        """Return the bucket of a log, or of anything else that has a name."""
        return zlib.crc32(name.encode()) % BUCKETS

    def of_log(self, log_id: str) -> LogKeys:
        """Return the keys of a log."""
        tag = f"{self._prefix}:{{{self.bucket_of(log_id)}}}"
        end = quote(log_id, safe="")
        return LogKeys(*(f"{tag}:{kind}:{end}".encode() for kind in _KINDS))

    def of_bucket(self, bucket: int, kind: str) -> bytes:
        """Return a key that a bucket's logs share: ``open``, ``due`` or ``ended``."""
        return f"{self._prefix}:{{{bucket}}}:{kind}".encode()

    def of_name(self, kind: str, name: str) -> bytes:
        """Return the key of something that is no log, such as a ticket."""
        return f"{self._prefix}:{{{self.bucket_of(name)}}}:{kind}:{quote(name, safe='')}".encode()

    def of_run(self, bucket: int, run_id: str) -> bytes:
        """Return the key that says which logs of a bucket have a run of this id."""
        return f"{self._prefix}:{{{bucket}}}:run:{quote(run_id, safe='')}".encode()

    @property
    def every(self) -> str:
        """The pattern that all keys match, but for the mark."""
        return f"{self._prefix}:{{*}}:*"

    @property
    def every_meta(self) -> str:
        """The pattern that the meta keys of all logs match."""
        return f"{self._prefix}:{{*}}:m:*"


_KINDS = ("m", "s", "z", "r", "k", "c", "live")

"""
Which of several Redis that know nothing of each other has which bucket.

A user's bucket never changes. The buckets are dealt to the shards by a table
that depends on nothing but their number: each has the same share, to one, and
with one shard more only that one's share moves.
"""

from __future__ import annotations

from functools import cache

from catenary.eventlog.redis.keys import BUCKETS


@cache
def shard_of_each(count: int) -> tuple[int, ...]:
    """Return the shard of each bucket among so many shards; the first bucket is on the first."""
    held = [list(range(BUCKETS))]
    while len(held) < count:
        share = BUCKETS // (len(held) + 1)
        # Each from whoever has the most, so nothing moves between those that were there.
        held.append([max(held, key=len).pop() for _ in range(share)])
    found = {bucket: shard for shard, buckets in enumerate(held) for bucket in buckets}
    return tuple(found[bucket] for bucket in range(BUCKETS))

"""
Where the logs of many users lie: how even the servers' shares are, and what moves with one more.

Four ways are compared: the table that ``shards=1`` uses, a Redis Cluster whose
slots are dealt in equal ranges anew, a jump hash of the bucket, and its
remainder. The ids are random, or numbered with ``--numbered``. Prints a table, or
JSON lines.
"""

from __future__ import annotations

import argparse
import json
import random
import zlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.table import Table

from catenary.eventlog.redis.keys import BUCKETS
from catenary.eventlog.redis.placement import shard_of_each
from catenary.eventlog.redis.store import slot_of

SLOTS = 16384
SERVERS = (1, 2, 4, 8, 10, 16, 20, 32)


def ids(options: argparse.Namespace) -> Iterator[bytes]:
    """Return the users' ids."""
    if options.numbered:
        return (b"user_%d" % number for number in range(options.users))
    draw = random.Random(options.seed).getrandbits
    return (b"%032x" % draw(128) for _ in range(options.users))


def users_in_buckets(names: Iterator[bytes]) -> list[int]:
    """Count the users of each bucket."""
    found = [0] * BUCKETS
    crc32 = zlib.crc32
    for name in names:
        found[crc32(name) % BUCKETS] += 1
    return found


# Each way says which server has each bucket, of so many.

Way = Callable[[int], Sequence[int]]


def by_table(count: int) -> Sequence[int]:
    return shard_of_each(count)


def by_slot_ranges(count: int) -> Sequence[int]:
    return [slot_of(bucket) * count // SLOTS for bucket in range(BUCKETS)]


def by_remainder(count: int) -> Sequence[int]:
    return [bucket % count for bucket in range(BUCKETS)]


def by_jump(count: int) -> Sequence[int]:
    return [jump(bucket, count) for bucket in range(BUCKETS)]


def jump(bucket: int, count: int) -> int:
    """Hash to one of ``count``, so that one more takes a share by chance (Lamping and Veach, 2014)."""
    key = zlib.crc32(b"%d" % bucket) << 32 | zlib.crc32(b"%d." % bucket)
    last, following = -1, 0
    while following < count:
        last = following
        key = (key * 2862933555777941757 + 1) % 2**64
        following = int((last + 1) * (2**31 / ((key >> 33) + 1)))
    return last


WAYS: dict[str, Way] = {
    "shards=1": by_table,
    "cluster, equal ranges of slots": by_slot_ranges,
    "jump hash": by_jump,
    "remainder": by_remainder,
}


def share(users: Sequence[int], way: Way, count: int) -> dict[str, float]:
    """Say how even the servers' shares of the users are, and how many users move with one more."""
    held = [0] * count
    moved = 0
    for bucket, (here, then) in enumerate(zip(way(count), way(count + 1), strict=True)):
        held[here] += users[bucket]
        moved += users[bucket] * (here != then)
    mean = sum(users) / count
    return {
        "least": round(min(held) / mean, 3),
        "most": round(max(held) / mean, 3),
        "moves": round(moved / sum(users), 3),
        "must": round(1 / (count + 1), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--numbered", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    users = users_in_buckets(ids(options))
    rows = [
        {"way": name, "servers": count, **share(users, way, count)}
        for name, way in WAYS.items()
        for count in SERVERS
    ]
    if options.json:
        print("\n".join(map(json.dumps, rows)))
        return
    mean = sum(users) / BUCKETS
    print(f"a bucket has {mean:.0f} users, {min(users)} to {max(users)}")
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()

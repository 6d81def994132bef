"""
The mark of a shard: which of how many it is.

It lies on the server itself, so that two nodes never disagree about where a
user's log lies, whatever their URLs say.
"""

from __future__ import annotations

from collections.abc import Sequence

from catenary.errors import ConfigError
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.link import Link
from catenary.eventlog.redis.store import Store

MOVING = b"moving"
"""The mark of servers between which logs are being moved."""


def marks_of(store: Store) -> list[tuple[Link, bytes]]:
    """Return the servers of a log that is in shards, each with the mark that it should have."""
    links = store.links()
    hosts = store.address.hosts
    return [(link, f"{hosts.index(link.server) + 1} of {len(hosts)}".encode()) for link in links]


def check_marks(store: Store, keys: Keys) -> None:
    """
    Mark shards that are new, and refuse those that are others.

    Raises:
        ConfigError: If a server is another shard than the URL says, or one where it names none.
    """
    if store.servers.is_cluster:
        return
    if not store.servers.is_spread:
        link = store.link()
        _refuse_other(link, link.command("GET", keys.mark), None)
        return
    for link, mark in marks_of(store):
        link.command("SET", keys.mark, mark, "NX")
        _refuse_other(link, link.command("GET", keys.mark), mark)


def _refuse_other(link: Link, found: bytes | None, wanted: bytes | None) -> None:
    if found == wanted:
        return
    if found == MOVING:
        raise ConfigError(f"{link.where}: its logs are being moved. Finish catenary log move first")
    here = f"shard {found.decode()}" if found else "no shard"
    named = f"shard {wanted.decode()}" if wanted else "the only server"
    raise ConfigError(
        f"{link.where} is {here}, and the URL names it as {named}. Name all shards in their order, "
        "with shards=1; their number is changed by catenary log move"
    )


def set_marks(links: Sequence[Link], keys: Keys, mark: bytes) -> None:
    """Give servers a mark."""
    for link in links:
        link.command("SET", keys.mark, mark)

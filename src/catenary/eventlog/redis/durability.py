"""What an acknowledged event survives in a Redis, as it is configured."""

from __future__ import annotations

from redis.exceptions import RedisError

from catenary.errors import ConfigError
from catenary.eventlog.model import Durability
from catenary.eventlog.redis.address import Address
from catenary.eventlog.redis.errors import errors_of
from catenary.eventlog.redis.link import Link
from catenary.eventlog.redis.store import Store
from catenary.eventlog.shared.durability import InForce

_EVICTING = ("allkeys", "volatile")


def in_force(store: Store, address: Address, required: Durability | None) -> InForce:
    """
    Read what the servers are set to; of several the weakest counts.

    Raises:
        ConfigError: If it is less than the URL asks for or is required, or a server evicts keys.
    """
    links = store.links()
    if not store.servers.is_cluster:
        for link in links:
            if link.about.get("cluster_enabled") == "1":
                raise ConfigError(f"{link.where} is a node of a cluster: add cluster=1 to the URL")
    rows = list(map(_row, links))
    weakest = min(rows, key=lambda row: list(Durability).index(row.durability))
    weakest.check(
        address.durability,
        required,
        shown=address.shown,
        advice="Set appendonly yes, and appendfsync always for power; or ask for less",
    )
    return weakest


def _row(link: Link) -> InForce:
    policy = _config(link, "maxmemory-policy")
    if policy is not None and policy.startswith(_EVICTING):
        raise ConfigError(
            f"{link.where} may drop events when it is full: its maxmemory-policy is {policy}. "
            "Set it to noeviction"
        )
    is_appending = link.about.get("aof_enabled") == "1"
    replicas = int(link.about.get("connected_slaves", "0"))
    note = _of_replicas(replicas) + ("" if policy else "; whether it evicts keys is unknown")
    if not is_appending:
        text = "the end of every bridge, not the end of Redis, which has no AOF"
        return InForce(Durability.MEMORY, text + note)
    fsync = _config(link, "appendfsync")
    if fsync is None:
        text = "what is unknown: CONFIG is forbidden, so appendfsync cannot be read"
        return InForce(Durability.MEMORY, text + note)
    if fsync == "always":
        text = "a loss of power, if the same primary comes back (AOF always)"
        return InForce(Durability.POWER, text + note)
    lost = "about the last second" if fsync == "everysec" else "up to half a minute"
    text = f"the end of Redis; a loss of power takes {lost} (AOF {fsync})"
    return InForce(Durability.PROCESS, text + note)


def _of_replicas(count: int) -> str:
    if not count:
        return ""
    return f"; a failover to one of {count} replicas may take the last, and clients are told"


def _config(link: Link, name: str) -> str | None:
    """Return a setting; None if it may not be read."""
    (answer,) = link.commands([("CONFIG", "GET", name)])
    if isinstance(answer, RedisError):
        text = str(answer).lower()
        if "permissions" in text or "unknown command" in text or "noperm" in text:
            return None
        with errors_of(link.where):
            raise answer
    return answer[1].decode() if answer else None

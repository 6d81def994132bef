"""A thread's way to the servers of a log: which has what, and the calls to them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from redis.crc import key_slot
from redis.sentinel import Sentinel

from catenary.errors import LogError, LogUnavailable
from catenary.eventlog.redis.address import Address, Topology
from catenary.eventlog.redis.errors import errors_of
from catenary.eventlog.redis.keys import BUCKETS
from catenary.eventlog.redis.link import CONNECT_TIMEOUT, Call, Link, connection_to
from catenary.eventlog.redis.placement import shard_of_each
from catenary.eventlog.redis.scripts import Rules
from catenary.eventlog.shared.address import Server


class Servers:
    """Which server has which bucket. Asked again after :meth:`forget`. Thread-safe."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._map: dict[int, Server] = {}
        self._known = list(address.hosts)
        """Of a cluster: whom to ask who has what."""

    @property
    def is_cluster(self) -> bool:
        """Whether they are nodes of one cluster, which knows who has what."""
        return self._address.topology is Topology.CLUSTER

    @property
    def is_spread(self) -> bool:
        """Whether buckets lie on several servers."""
        return self._address.topology in (Topology.CLUSTER, Topology.SHARDS)

    def of(self, bucket: int) -> Server:
        """Return the server of a bucket. Raises ``LogUnavailable`` if nobody can tell."""
        found = self._map.get(bucket)
        if found is None:
            found = self._ask()[bucket]
        return found

    def _ask(self) -> dict[int, Server]:
        if self.is_cluster:
            self._map = buckets_of_cluster(self._address, self._known)
            self._known = list({*self._address.hosts, *self._map.values()})
        elif self.is_spread:
            hosts = self._address.hosts
            self._map = {
                bucket: hosts[shard] for bucket, shard in enumerate(shard_of_each(len(hosts)))
            }
        else:
            is_watched = self._address.topology is Topology.SENTINEL
            server = primary_of_sentinel(self._address) if is_watched else self._address.hosts[0]
            self._map = dict.fromkeys(range(BUCKETS), server)
        return self._map

    def all(self) -> list[Server]:
        """Return every server that has a bucket."""
        return list(dict.fromkeys((self._map or self._ask()).values()))

    def forget(self) -> None:
        """Ask again before the next use: a server is away, or has not what it had."""
        self._map = {}


class Store:
    """
    The connections of one thread, opened when they are needed.

    A connection that failed is dropped; the next call opens another, to
    whatever server has the data then. With ``wait`` a call has its answer only
    once so many replicas have what it wrote.
    """

    def __init__(self, address: Address, rules: Rules, *, wait: int = 0) -> None:
        self.address = address
        self._wait_for = wait
        self.servers = Servers(address)
        self._rules = rules
        self._links: dict[Server, Link] = {}

    # Which server

    def link(self, bucket: int = 0) -> Link:
        """Return an open connection to the primary that has a bucket."""
        server = self.servers.of(bucket)
        link = self._links.get(server)
        if link is None:
            link = self._links[server] = Link(self.address, server, self._rules)
        return link

    def links(self) -> list[Link]:
        """Return an open connection to each server."""
        return list(dict.fromkeys(map(self.link, range(BUCKETS))))

    @property
    def processes(self) -> frozenset[str]:
        """The Redis processes that it is connected to."""
        return frozenset(link.process for link in self._links.values())

    # Calling

    def call(self, bucket: int, script: str, keys: Sequence[bytes], *args: Any) -> Any:
        """Call a script."""
        return self.call_all([Call(bucket, script, keys, args)])[0]

    def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """
        Call scripts, at most one a bucket, all at once.

        Raises:
            LogUnavailable: If one did not answer; the others may have been done.
        """
        try:
            by_link: defaultdict[Link, list[int]] = defaultdict(list)
            for at, call in enumerate(calls):
                by_link[self.link(call.bucket)].append(at)
            for link, places in by_link.items():
                link.send_calls([calls[at] for at in places])
            answers: list[Any] = [None] * len(calls)
            for link, places in by_link.items():
                found = link.answers_to([calls[at] for at in places])
                for at, answer in zip(places, found, strict=True):
                    answers[at] = answer
            self._wait(by_link)
        except BaseException as error:
            self._give_up(error)
            raise
        return answers

    def _wait(self, links: Any) -> None:
        wanted = self._wait_for
        if not wanted:
            return
        for link in links:
            count = int(link.command("WAIT", wanted, int(CONNECT_TIMEOUT * 1000)))
            if count < wanted:
                raise LogUnavailable(
                    f"{link.where}: {count} of {wanted} replicas have it. Events wait until wait= "
                    "replicas are in sync"
                )

    def command(self, bucket: int, *words: bytes | str | float) -> Any:
        """Send a command that has at most one key, of this bucket."""
        try:
            return self.link(bucket).command(*words)
        except BaseException as error:
            self._give_up(error)
            raise

    def commands(
        self, by_bucket: Sequence[tuple[int, Sequence[bytes | str | int | float]]]
    ) -> list[Any]:
        """Send one command to each of some buckets, all at once. Raises as ``call_all``."""
        try:
            by_link: defaultdict[Link, list[int]] = defaultdict(list)
            for at, (bucket, _) in enumerate(by_bucket):
                by_link[self.link(bucket)].append(at)
            answers: list[Any] = [None] * len(by_bucket)
            for link, places in by_link.items():
                found = link.commands([by_bucket[at][1] for at in places])
                for at, answer in zip(places, found, strict=True):
                    answers[at] = link.checked(answer)
        except BaseException as error:
            self._give_up(error)
            raise
        return answers

    def _give_up(self, error: BaseException) -> None:
        """Drop the connections, for answers may still come on them."""
        if isinstance(error, LogError):
            self.servers.forget()
        self.close()

    def rested(self) -> None:
        """Before the next use after a while: drop connections that have been closed meanwhile."""
        if any(link.is_closed for link in self._links.values()):
            self.servers.forget()
            self.close()

    def close(self) -> None:
        """Close every connection. Idempotent."""
        links, self._links = self._links, {}
        for link in links.values():
            link.close()


def primary_of_sentinel(address: Address) -> Server:
    """Ask the sentinels for the primary; any of them will do."""
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        list(address.hosts),
        sentinel_kwargs={
            "username": address.sentinel_username,
            "password": address.sentinel_password,
            "socket_timeout": CONNECT_TIMEOUT,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "ssl": address.is_tls,
            **address.tls,
        },
    )
    try:
        with errors_of(f"sentinels of {address.master}"):
            host, port = sentinel.discover_master(address.master)
    finally:
        for one in sentinel.sentinels:
            one.close()
    return str(host), int(port)


def buckets_of_cluster(address: Address, known: Sequence[Server]) -> dict[int, Server]:
    """Ask the nodes of a cluster, in any order, which server has which bucket."""
    problem: Exception | None = None
    for host, port in random.sample(known, len(known)):
        try:
            slots = _slots(address, host, port)
            return {bucket: slots[slot_of(bucket)] for bucket in range(BUCKETS)}
        except LogError as error:
            problem = error
        except KeyError as missing:
            problem = LogUnavailable(f"redis at {host}:{port}: nobody has slot {missing}")
    raise problem or LogUnavailable(f"{address.shown}: no node answers")


def _slots(address: Address, host: str, port: int) -> dict[int, Server]:
    connection = connection_to(address, host, port)
    try:
        with errors_of(f"redis at {host}:{port}"):
            connection.connect()
            connection.send_command("CLUSTER", "SLOTS", check_health=False)
            ranges = connection.read_response(disable_decoding=True)
    finally:
        connection.disconnect()
    found: dict[int, Server] = {}
    for first, last, primary, *_ in ranges:
        # A node that does not know its own name is the one that was asked.
        server = ((primary[0] or b"").decode() or host, int(primary[1]))
        found.update(dict.fromkeys(range(first, last + 1), server))
    return found


def slot_of(bucket: int) -> int:
    """Return the slot of a bucket's keys."""
    slot: int = key_slot(f"{{{bucket}}}".encode())
    return slot

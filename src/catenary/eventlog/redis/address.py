"""Where a Redis log is: what its URL says."""

from __future__ import annotations

import enum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from catenary.errors import ConfigError
from catenary.eventlog.model import Durability
from catenary.eventlog.shared.address import (
    DEFAULT_PREFIX,
    Server,
    durability_of,
    is_on,
    server_of,
)

_PORT = 6379
_SENTINEL_PORT = 26379
_FORMS = (
    "redis://host:6379/0, redis://sentinel1,sentinel2/0?sentinel=mymaster, "
    "redis://node1,node2?cluster=1, redis://one,another/0?shards=1; rediss:// for TLS"
)


class Topology(enum.Enum):
    """How the servers stand to each other."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"
    SHARDS = "shards"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """
    The servers of a log and what is asked of them.

    Attributes:
        hosts: The server; of Sentinel its sentinels, of a cluster some of its nodes, of shards
            all of them in their order.
        wait: How many replicas must have an append before it is acknowledged.
        trust_restart: Whether data that were written on another process count as
            whole: for AOF ``always`` on one primary.
    """

    hosts: tuple[Server, ...]
    topology: Topology = Topology.SINGLE
    master: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    is_tls: bool = False
    tls: dict[str, str] = {}
    key_prefix: str = DEFAULT_PREFIX
    durability: Durability | None = None
    wait: int = 0
    trust_restart: bool = False

    @property
    def shown(self) -> str:
        """The servers without their password, for errors and logs."""
        servers = ",".join(f"{host}:{port}" for host, port in self.hosts)
        of = f" ({self.topology.value} {self.master})" if self.master else ""
        return f"redis://{servers}/{self.db}{of}"


def parse(url: str) -> Address:
    """
    Read a URL.

    Raises:
        ConfigError: If it is none; the text says what one looks like, and holds no password.
    """
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    login, _, servers = parts.netloc.rpartition("@")
    topology = _topology(given)
    address = Address(
        hosts=_hosts(servers, topology),
        topology=topology,
        master=given.pop("sentinel", ""),
        db=_db(parts.path, topology),
        **_login(login),
        sentinel_username=given.pop("sentinel_username", None),
        sentinel_password=given.pop("sentinel_password", None),
        is_tls=parts.scheme == "rediss",
        tls={name: given.pop(name) for name in _TLS if name in given},
        key_prefix=_prefix(given.pop("key_prefix", DEFAULT_PREFIX)),
        durability=durability_of(given.pop("durability", "any")),
        wait=_number("wait", given.pop("wait", "0")),
        trust_restart=is_on("trust_restart", given.pop("trust_restart", "0")),
    )
    if given:
        raise ConfigError(
            f"{address.shown}: unknown {', '.join(given)}; a Redis log has durability=, wait=, "
            "trust_restart=, key_prefix=, sentinel=, cluster=, shards= and ssl_…="
        )
    return address


_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")


def _topology(given: dict[str, str]) -> Topology:
    asked = [
        topology
        for topology in (Topology.CLUSTER, Topology.SHARDS)
        if is_on(topology.value, given.pop(topology.value, "0"))
    ]
    if "sentinel" in given:
        if asked or not given["sentinel"]:
            raise ConfigError("sentinel= names the monitored master, and excludes cluster=1")
        return Topology.SENTINEL
    if len(asked) > 1:
        raise ConfigError("cluster=1 and shards=1 exclude each other")
    return asked[0] if asked else Topology.SINGLE


def _hosts(servers: str, topology: Topology) -> tuple[Server, ...]:
    default = _SENTINEL_PORT if topology is Topology.SENTINEL else _PORT
    otherwise = f"a Redis log names its servers: {_FORMS}"
    hosts = tuple(server_of(server, default, otherwise) for server in servers.split(","))
    if topology is Topology.SINGLE and len(hosts) > 1:
        raise ConfigError(f"several servers need cluster=1, shards=1 or sentinel=: {_FORMS}")
    if len(set(hosts)) < len(hosts):
        raise ConfigError("a server is named twice")
    return hosts


def _login(text: str) -> dict[str, Any]:
    name, separator, password = text.partition(":")
    if not text:
        return {}
    return {
        "username": unquote(name) or None,
        "password": unquote(password) if separator else None,
    }


def _db(path: str, topology: Topology) -> int:
    text = path.strip("/")
    db = _number("the database", text or "0")
    if db and topology is Topology.CLUSTER:
        raise ConfigError("a Redis Cluster has one database, 0: leave the number out")
    return db


def _prefix(text: str) -> str:
    if not text or set(text) & set("{}*?[] \n") or not text.isascii():
        raise ConfigError("key_prefix= is a plain word, such as catenary or shop:events")
    return text


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise ConfigError(f"{name} is a small number, not {text!r}. {_FORMS}")
    return int(text)

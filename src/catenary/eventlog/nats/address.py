"""Where a NATS log is: what its URL says."""

from __future__ import annotations

import enum
import re
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

_PORT = 4222
_FORMS = "nats://host:4222, nats://host1,host2,host3?replicas=3; tls:// for TLS"
_OPTIONS = (
    "durability=, replicas=, storage=, trust_restart=, key_prefix=, monitor=, domain=, creds=, "
    "nkey= and ssl_…="
)
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class Storage(enum.StrEnum):
    """What JetStream keeps a stream in."""

    FILE = "file"
    MEMORY = "memory"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """
    The servers of a log and what is asked of them.

    Attributes:
        hosts: Some of the servers; they tell of the others.
        replicas: On how many servers each event is stored. A stream that has fewer
            is refused; None takes what is there, and makes one.
        trust_restart: Whether a restarted store counts as whole.
        monitor: The monitoring addresses of the servers, where their settings are read.
        credentials_file: A file with a user's JWT and seed.
        seed_file: A file with a user's seed.
    """

    hosts: tuple[Server, ...]
    username: str | None = None
    password: str | None = None
    credentials_file: str = ""
    seed_file: str = ""
    is_tls: bool = False
    tls: dict[str, str] = {}
    domain: str = ""
    key_prefix: str = DEFAULT_PREFIX
    replicas: int | None = None
    storage: Storage = Storage.FILE
    durability: Durability | None = None
    trust_restart: bool = False
    monitor: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The servers without their password, for errors and logs."""
        return "nats://" + ",".join(f"{host}:{port}" for host, port in self.hosts)

    @property
    def api(self) -> str:
        """What the subjects of JetStream's own calls begin with."""
        return f"$JS.{self.domain}.API" if self.domain else "$JS.API"


def parse(url: str) -> Address:
    """
    Read a URL.

    Raises:
        ConfigError: If it is none; the text says what one looks like, and holds no password.
    """
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    login, _, servers = parts.netloc.rpartition("@")
    otherwise = f"a NATS log names its servers: {_FORMS}"
    address = Address(
        hosts=tuple(server_of(server, _PORT, otherwise) for server in servers.split(",")),
        **_login(login),
        credentials_file=given.pop("creds", ""),
        seed_file=given.pop("nkey", ""),
        is_tls=parts.scheme == "tls",
        tls={name: given.pop(name) for name in _TLS if name in given},
        domain=_word("domain", given.pop("domain", "")),
        key_prefix=_word("key_prefix", given.pop("key_prefix", DEFAULT_PREFIX)),
        replicas=_replicas(given.pop("replicas", "")),
        storage=_storage(given.pop("storage", "file")),
        durability=durability_of(given.pop("durability", "any")),
        trust_restart=is_on("trust_restart", given.pop("trust_restart", "0")),
        monitor=_monitor(given.pop("monitor", "")),
    )
    if given:
        raise ConfigError(f"{address.shown}: unknown {', '.join(given)}; a NATS log has {_OPTIONS}")
    if parts.path.strip("/") or not address.key_prefix:
        raise ConfigError(f"{address.shown}: a NATS log has no path, and a key_prefix=. {_FORMS}")
    return address


_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def _login(text: str) -> dict[str, Any]:
    name, separator, password = text.partition(":")
    if not text:
        return {}
    return {
        "username": unquote(name),
        "password": unquote(password) if separator else None,
    }


def _word(name: str, text: str) -> str:
    if text and not _WORD.fullmatch(text):
        raise ConfigError(f"{name}= is a plain word, such as catenary or shop-events")
    return text


def _replicas(text: str) -> int | None:
    if not text:
        return None
    if text not in {"1", "2", "3", "4", "5"}:
        raise ConfigError(f"replicas= is 1 to 5, as JetStream has it, not {text!r}")
    return int(text)


def _storage(text: str) -> Storage:
    if text not in set(Storage):
        raise ConfigError(f"storage= is file or memory, not {text!r}")
    return Storage(text)


def _monitor(text: str) -> tuple[str, ...]:
    found = tuple(part for part in text.split(",") if part)
    if not all(part.startswith(("http://", "https://")) for part in found):
        raise ConfigError("monitor= names monitoring addresses, such as http://host:8222")
    return found

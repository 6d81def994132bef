"""Words of the URLs of shared logs, whatever store they name."""

from __future__ import annotations

from urllib.parse import urlsplit

from catenary.errors import ConfigError
from catenary.eventlog.model import Durability

DEFAULT_PREFIX = "catenary"

Server = tuple[str, int]
"""A server's host and port."""


def server_of(text: str, port: int, otherwise: str) -> Server:
    """
    Read a server, on ``port`` if it names none.

    Raises:
        ConfigError: If it is none; the text is ``otherwise``.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or port
    except ValueError:
        host = None
    if not host:
        raise ConfigError(otherwise)
    return host, port


def durability_of(text: str) -> Durability | None:
    """Read what an event must survive; None for whatever the store gives. Raises as above."""
    if text == "any":
        return None
    if text not in {Durability.PROCESS, Durability.POWER}:
        raise ConfigError(f"durability= is any, process or power, not {text!r}")
    return Durability(text)


def is_on(name: str, text: str) -> bool:
    """Read a switch. Raises as above."""
    if text not in {"0", "1"}:
        raise ConfigError(f"{name}= is 1 or 0, not {text!r}")
    return text == "1"

"""The server that a proxy leads to."""

from __future__ import annotations

import socket
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from catenary.errors import UsageError

HOST = "127.0.0.1"
_DEFAULT_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}


class Target(NamedTuple):
    """Where a proxy leads."""

    host: str
    port: int

    @classmethod
    def parse(cls, target: str | int) -> Target:
        """
        Read a port of this machine, ``host:port``, or a URL.

        Raises:
            UsageError: If it is none of these.
        """
        if isinstance(target, int):
            return cls(HOST, target)
        try:
            parts = urlsplit(target if "://" in target else f"//{target}")
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        except ValueError:
            parts, port = urlsplit(""), None
        if not parts.hostname or not port:
            raise UsageError(f"{target!r} is no target; give a port, 'host:port' or a URL")
        return cls(parts.hostname, port)

    def url_through(self, port: int, url: str) -> str:
        """
        Return a URL of this server as it is through a proxy at ``port``.

        Raises:
            UsageError: If it leads to another port.
        """
        asked, parts = Target.parse(url), urlsplit(url)
        if asked.port != self.port:
            raise UsageError(f"the proxy leads to {self}, and {url!r} to another port")
        user, at, _ = parts.netloc.rpartition("@")
        host = asked.host if asked.host == "localhost" else HOST
        return urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{port}"))

    def usable_address(self, address: str) -> str:
        """
        Return an address of this machine from which the server can be reached.

        Raises:
            UsageError: If there is no such address, or it cannot be reached from one.
        """
        if self.host != "localhost" and not self.host.startswith("127."):
            raise UsageError(f"{self} is not on loopback, so the address cannot be changed")
        try:
            with socket.socket() as probe:
                probe.bind((address, 0))
        except OSError as error:
            raise UsageError(
                f"this machine has no address {address} ({error}); "
                f"on macOS add it: sudo ifconfig lo0 alias {address}"
            ) from error
        return address

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

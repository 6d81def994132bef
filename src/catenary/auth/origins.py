"""Which web pages may connect."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from catenary.errors import AuthError, CloseCode, ConfigError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

# A name, an IPv4 address, or an IPv6 address in brackets.
_ORIGIN = re.compile(
    r"[a-zA-Z][a-zA-Z0-9+.-]*://([\w.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?", re.ASCII
)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Standing(enum.Enum):
    """What a request's ``Origin`` says about the page behind it."""

    ALLOWED = "allowed"
    FOREIGN = "foreign"
    ABSENT = "absent"


class Origins:
    """
    The origins whose pages may connect: an exact list, or else the server's own.

    With a list, a request from any other origin is refused. Without one, the
    page's host must be the request's ``Host`` to count as allowed, and a
    foreign page may connect with credentials that it holds itself, never with
    ones that the browser adds. A request without ``Origin`` is not from a
    page, or is a page's plain GET of its own server, which browsers mark with
    ``Sec-Fetch-Site: same-origin``.

    Raises:
        ConfigError: If an entry is not ``scheme://host[:port]``.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        if isinstance(allowed, str):
            raise ConfigError(f"allowed origins are a list, such as [{allowed!r}]")
        self._allowed = frozenset(_checked(origin) for origin in allowed)
        self._allowed_hosts = frozenset(origin.partition("://")[2] for origin in self._allowed)

    def check(self, connection: HTTPConnection) -> Standing:
        """
        What the request's origin stands for.

        Raises:
            AuthError: 403, reason ``origin``, if it is foreign and there is a list.
        """
        standing = self._standing(connection)
        if standing is Standing.FOREIGN and self._allowed:
            raise refused_origin("pages of this origin may not connect")
        return standing

    def _standing(self, connection: HTTPConnection) -> Standing:
        origins = _header(connection, b"origin")
        hosts = _header(connection, b"host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not origins:
            return self._standing_without_origin(connection, host)
        if len(origins) > 1:
            return Standing.FOREIGN
        origin = _without_default_port(origins[0])
        if self._allowed:
            is_allowed = origin in self._allowed
        else:
            scheme, _, page_host = origin.partition("://")
            is_allowed = page_host != "" and page_host == host.removesuffix(
                _DEFAULT_PORTS.get(scheme, "")
            )
        return Standing.ALLOWED if is_allowed else Standing.FOREIGN

    def _standing_without_origin(self, connection: HTTPConnection, host: str) -> Standing:
        if _header(connection, b"sec-fetch-site") != ["same-origin"]:
            return Standing.ABSENT
        is_listed = not self._allowed or host in self._allowed_hosts
        return Standing.ALLOWED if is_listed else Standing.ABSENT


def refused_origin(message: str) -> AuthError:
    """The refusal of a page, which is an HTTP 403 on every wire."""
    return AuthError(message, reason="origin", close_code=CloseCode.FORBIDDEN, status=403)


def _header(connection: HTTPConnection, wanted: bytes) -> list[str]:
    headers = connection.scope["headers"]
    return [value.decode("latin-1").lower() for name, value in headers if name == wanted]


def _without_default_port(origin: str) -> str:
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], "\0"))


def _checked(origin: str) -> str:
    if _ORIGIN.fullmatch(origin) is None:
        raise ConfigError(
            f"{origin!r} is not an origin: write scheme://host or scheme://host:port, without a "
            "path and without wildcards, such as https://app.example"
        )
    return _without_default_port(origin.lower())

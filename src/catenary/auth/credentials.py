"""Where a connection carries its credential."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from catenary.errors import AuthError, CloseCode

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

BEARER_SUBPROTOCOL = "catenary.bearer."

_TOKEN_PARAMETERS = frozenset(["token", "access_token", "jwt"])


class Source(enum.Enum):
    """Where in a request a credential was found."""

    HEADER = "header"
    SUBPROTOCOL = "subprotocol"
    COOKIE = "cookie"
    TICKET = "ticket"


class Credential(msgspec.Struct, frozen=True):
    """A token or a ticket, and where it was found; its text form does not show it."""

    source: Source
    value: str

    def __repr__(self) -> str:
        return f"Credential({self.source.value})"


def find_credentials(
    connection: HTTPConnection, *, cookie_name: str | None = None
) -> Credential | None:
    """
    The one credential that ``connection`` carries; None if it carries none.

    It is looked for in ``Authorization: Bearer``, in a subprotocol
    ``catenary.bearer.<jwt>``, in the query's ``ticket``, and in the cookie
    ``cookie_name`` if one is given. It is not verified.

    Raises:
        AuthError: Status 400 if there are two different ones, or a token in
            the query, where it would end up in logs.
    """
    found: dict[str, Credential] = {}
    for source, value in _carried(connection.scope, cookie_name):
        found.setdefault(value, Credential(source, value))
    if len(found) > 1:
        raise _bad_request("the request carries two different credentials; send one", "conflict")
    return next(iter(found.values()), None)


def find_ticket(connection: HTTPConnection) -> Credential | None:
    """
    The ticket in the query, whatever else the request carries; None if there is none.

    Raises:
        AuthError: Status 400 if there are two different ones.
    """
    values = {value for name, value in _query(connection.scope) if name == "ticket"}
    if len(values) > 1:
        raise _bad_request("the query carries two different tickets; send one", "conflict")
    return Credential(Source.TICKET, values.pop()) if values else None


def has_cookies(connection: HTTPConnection) -> bool:
    """Whether a browser added any cookies to the request."""
    return any(name == b"cookie" for name, _ in connection.scope["headers"])


def _carried(scope: Any, cookie_name: str | None) -> Iterator[tuple[Source, str]]:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                yield Source.HEADER, token.strip()
    for subprotocol in scope.get("subprotocols", ()):
        if subprotocol.startswith(BEARER_SUBPROTOCOL):
            yield Source.SUBPROTOCOL, subprotocol.removeprefix(BEARER_SUBPROTOCOL)
    for name, value in _query(scope):
        if name == "ticket":
            yield Source.TICKET, value
        elif name.lower() in _TOKEN_PARAMETERS:
            raise _bad_request(
                "a token in a URL ends up in logs and histories; ask POST /api/tickets for a "
                "ticket and connect with ?ticket=…",
                "token_in_url",
            )
    if cookie_name is not None:
        for value in _cookies(scope, cookie_name):
            yield Source.COOKIE, value


def _query(scope: Any) -> list[tuple[str, str]]:
    query = scope.get("query_string", b"")
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else []


def _cookies(scope: Any, cookie_name: str) -> Iterator[str]:
    """
    Every value of the cookie, not only one of them.

    A sister domain may set a second cookie of the same name; which of the two
    a browser sends first is not for it to choose who is signed in.
    """
    for name, value in scope["headers"]:
        if name == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                key, _, text = pair.strip().partition("=")
                if key == cookie_name:
                    yield text.strip('"')


def _bad_request(message: str, reason: str) -> AuthError:
    return AuthError(message, reason=reason, close_code=CloseCode.PROTOCOL_ERROR, status=400)

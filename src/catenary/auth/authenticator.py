"""Whoever connects, by whichever credential."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catenary.auth.credentials import (
    Credential,
    Source,
    find_credentials,
    find_ticket,
    has_cookies,
)
from catenary.auth.identity import Authenticate, Identity
from catenary.auth.origins import Origins, Standing, refused_origin
from catenary.errors import AuthError, CloseCode, ConfigError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from catenary.auth.tokens import JwtVerifier
    from catenary.tickets import Purpose, Tickets

_log = logging.getLogger("catenary.auth")


class Authenticator:
    """
    Tells who is at the other end of a connection.

    The page's origin is checked first, whatever follows. Then a ticket, or
    the application's own ``authenticate`` if there is one, or else a token
    decides. ``cookie_name`` lets browsers send the token in a cookie, from
    allowed pages only.

    Raises:
        ConfigError: If an origin is not one, or there is a cookie and nothing
            to verify it.
    """

    def __init__(
        self,
        *,
        verifier: JwtVerifier | None,
        tickets: Tickets | None,
        allowed_origins: Sequence[str] = (),
        cookie_name: str | None = None,
        authenticate: Authenticate | None = None,
    ) -> None:
        if cookie_name is not None and verifier is None:
            raise ConfigError("a cookie for tokens needs a way to verify them (a JWT key)")
        self._verifier = verifier
        self._tickets = tickets
        self._origins = Origins(allowed_origins)
        self._cookie_name = cookie_name
        self._authenticate = authenticate

    @property
    def needs_request(self) -> bool:
        """Whether ``verify_token`` needs the handshake of the connection."""
        return self._authenticate is not None

    async def identify(self, connection: HTTPConnection) -> Identity | None:
        """
        Who ``connection`` is from; None if it carries no credential.

        A WebSocket may then still send one in its first message.

        Raises:
            AuthError: If the page, or the credential, is refused.
            LogError: If there is a ticket and the log cannot be asked.
        """
        standing = self._origins.check(connection)
        if self._authenticate is not None:
            return await self._identify_by_application(self._authenticate, connection, standing)
        credential = find_credentials(connection, cookie_name=self._cookie_name)
        if credential is None:
            return None
        if credential.source is Source.COOKIE and standing is not Standing.ALLOWED:
            raise refused_origin("a cookie counts only with the Origin of an allowed page")
        if credential.source is Source.TICKET:
            return await self._redeem(credential, connection)
        return await self._verify(credential.value)

    async def verify_token(self, token: str, connection: HTTPConnection | None) -> Identity:
        """
        Who ``token``, sent in a message over ``connection``, names.

        An application's own ``authenticate`` is asked with a copy of the
        connection whose ``Authorization`` header bears the token instead.

        Raises:
            AuthError: If the token is refused.
        """
        if self._authenticate is not None:
            if connection is None:
                raise _not_authenticated()
            return await _ask(self._authenticate, _bearing(connection, token))
        return await self._verify(token)

    async def _identify_by_application(
        self, authenticate: Authenticate, connection: HTTPConnection, standing: Standing
    ) -> Identity:
        # The application may look at any cookie, and a browser adds those to
        # what a foreign page asks for.
        if standing is Standing.FOREIGN and has_cookies(connection):
            raise refused_origin("pages of other origins may not connect with cookies")
        ticket = find_ticket(connection) if self._tickets is not None else None
        if ticket is not None:
            return await self._redeem(ticket, connection)
        return await _ask(authenticate, connection)

    async def _verify(self, token: str) -> Identity:
        if self._verifier is None:
            raise AuthError("this server takes no tokens", reason="unsupported")
        return await self._verifier.verify(token)

    async def _redeem(self, ticket: Credential, connection: HTTPConnection) -> Identity:
        if self._tickets is None:
            raise AuthError("this server takes no tickets", reason="ticket")
        return await self._tickets.redeem(ticket.value, _purpose(connection))


def _purpose(connection: HTTPConnection) -> Purpose:
    scope = connection.scope
    if scope["type"] == "websocket":
        return "ws"
    if scope["method"] == "GET" and scope["path"].endswith("/sse"):
        return "sse"
    raise AuthError("a ticket opens /ws or /sse and nothing else; send a token", reason="ticket")


def _bearing(connection: HTTPConnection, token: str) -> HTTPConnection:
    from starlette.requests import HTTPConnection as Connection  # noqa: PLC0415 - only servers have it

    try:
        bearer = b"Bearer " + token.encode("ascii")
    except UnicodeEncodeError:
        bearer = None
    if bearer is None:
        raise AuthError("a token is plain ASCII", reason="malformed")
    headers = [pair for pair in connection.scope["headers"] if pair[0] != b"authorization"]
    return Connection({**connection.scope, "headers": [*headers, (b"authorization", bearer)]})


async def _ask(authenticate: Authenticate, connection: HTTPConnection) -> Identity:
    """What the application says; whatever else it raises than a refusal becomes one."""
    try:
        return _named(await authenticate(connection))
    except AuthError:
        raise
    except Exception as error:
        refusal = _refusal(error)
    raise refusal


def _named(answer: Any) -> Identity:
    if isinstance(answer, Identity):
        return answer
    if isinstance(answer, str):
        return Identity(user_id=answer)
    if answer is not None:
        _log.error(
            "authenticate answered a %s, not an Identity, a str or None: the connection is refused",
            type(answer).__name__,
        )
    raise _not_authenticated()


def _refusal(error: Exception) -> AuthError:
    from starlette.exceptions import HTTPException  # noqa: PLC0415 - only servers have it

    if not isinstance(error, HTTPException):
        # Not its text, which may quote the credential it complains about.
        place = traceback.extract_tb(error.__traceback__)[-1]
        _log.error(
            "authenticate raised %s (%s:%s in %s): the connection is refused",
            type(error).__name__,
            place.filename,
            place.lineno,
            place.name,
        )
        return _not_authenticated()
    if error.status_code == 403:
        return AuthError(
            "not allowed", reason="application", close_code=CloseCode.FORBIDDEN, status=403
        )
    if error.status_code >= 500:
        return AuthError(
            "who this is cannot be told now; try again",
            reason="application",
            close_code=CloseCode.OVERLOADED,
            status=503,
        )
    return _not_authenticated()


def _not_authenticated() -> AuthError:
    return AuthError("not authenticated", reason="application")

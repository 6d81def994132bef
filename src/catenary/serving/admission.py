"""Who may connect, to which log, and how a refusal is told."""

from __future__ import annotations

import logging
from typing import NamedTuple

from starlette.requests import HTTPConnection

from catenary.auth import Authenticator, Identity, granted_access, may_use_thread
from catenary.context import new_id
from catenary.errors import AuthError, CloseCode, LogError, UsageError
from catenary.factory import WebSocketBridgeFactory
from catenary.serving.query import Wanted, read_query

logger = logging.getLogger("catenary.serving")


class Refusal(Exception):
    """A connection that is not let in. The message is safe to show."""

    def __init__(
        self,
        status: int,
        error: str,
        message: str,
        *,
        close_code: CloseCode | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.close_code = close_code
        """For a client that offered the subprotocol and cannot read a status."""
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an HTTP answer."""
        headers = {"cache-control": "no-store"}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


class Admitted(NamedTuple):
    """What a connection was granted."""

    identity: Identity
    log_id: str
    may_write: bool


class Admission:
    """Lets connections in: readiness, credentials, log and threads."""

    def __init__(self, factory: WebSocketBridgeFactory, authenticator: Authenticator) -> None:
        self.factory = factory
        self.authenticator = authenticator
        self._counts = factory.manager.counters.authentications

    def check_ready(self) -> None:
        """Refuse with 503 while the bridge cannot serve."""
        problem = self.factory.problem()
        if problem is not None:
            raise Refusal(503, "not_ready", f"not ready: {problem}", retry_after=1)

    def wanted(self, request: HTTPConnection) -> Wanted:
        """Return what the query asks for, or refuse."""
        try:
            return read_query(request.scope["query_string"])
        except UsageError as error:
            raise Refusal(
                400, "bad_request", str(error), close_code=CloseCode.PROTOCOL_ERROR
            ) from None

    async def identify(self, request: HTTPConnection) -> Identity | None:
        """Return who this is; None without a credential."""
        try:
            identity = await self.authenticator.identify(request)
        except AuthError as error:
            raise self.refused(error) from None
        except LogError:
            raise Refusal(503, "not_ready", "the event log cannot be read", retry_after=1) from None
        if identity is not None:
            self._counts["ok"] += 1
        return identity

    async def identify_token(self, token: str, request: HTTPConnection) -> Identity:
        """Return whom a token of a first message names."""
        try:
            identity = await self.authenticator.verify_token(token, request)
        except AuthError as error:
            raise self.refused(error) from None
        self._counts["ok"] += 1
        return identity

    def refused(self, error: AuthError) -> Refusal:
        """Count a refusal and give it a shape. A foreign origin is always HTTP 403."""
        self._counts[error.reason] += 1
        logger.info("a connection was refused: %s (%s)", error, error.reason)
        names = {400: "bad_request", 401: "unauthorized", 403: "forbidden"}
        is_http = error.reason == "origin" or error.status in {429, 503}
        return Refusal(
            error.status,
            names.get(error.status, "unavailable"),
            str(error),
            close_code=None if is_http else error.close_code,
            retry_after=1 if error.status == 503 else None,
        )

    async def admit(self, identity: Identity, wanted: Wanted) -> Admitted:
        """Return what an identity is granted of what it wants, or refuse."""
        log_id = wanted.log_id or identity.user_id
        access = await granted_access(self.factory.authorize_log, identity, log_id)
        if access is None:
            raise self._forbidden("no such log")
        for thread_id in wanted.thread_ids or ():
            rule = self.factory.service.authorize_thread
            if not await may_use_thread(rule, identity, thread_id):
                raise self._forbidden("no such thread")
        return Admitted(identity, log_id, access == "write")

    def _forbidden(self, message: str) -> Refusal:
        self._counts["forbidden"] += 1
        return Refusal(403, "forbidden", message, close_code=CloseCode.FORBIDDEN)


def new_connection_id() -> str:
    """Return a fresh connection id."""
    return new_id("c")

"""Who may connect, to which log, and how a refusal is told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from starlette.requests import HTTPConnection

from catenary.auth import Authenticator, Identity, granted_access, may_use_thread
from catenary.connection import Connection, MessageHandler
from catenary.context import ConnectionStatus, new_id
from catenary.control import lives_until
from catenary.errors import AuthError, CloseCode, LogError, UsageError
from catenary.factory import WebSocketBridgeFactory
from catenary.serving.query import KEYWORDS, Wanted, read_query
from catenary.session import Session

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
    """
    Lets connections in, on whichever wire: readiness, credentials, log and threads.

    ``expects`` names the message types without whose handlers the bridge is
    not ready.
    """

    def __init__(
        self,
        factory: WebSocketBridgeFactory,
        authenticator: Authenticator,
        *,
        expects: Sequence[str] = (),
    ) -> None:
        self.factory = factory
        self.authenticator = authenticator
        self._expected = tuple(expects)
        self._counts = factory.manager.counters.authentications

    def problem(self) -> str | None:
        """Why the bridge is not ready, in words that are safe to show; None if it is."""
        problem = self.factory.problem()
        if problem is not None:
            # What a log says of itself may name its place.
            is_of_log = self.factory.is_started and not self.factory.is_draining
            return "the event log does not commit" if is_of_log else problem
        missing = [type for type in self._expected if not self.factory.service.handles(type)]
        return f"no handler yet for {', '.join(missing)}" if missing else None

    def check_ready(self) -> None:
        """Refuse with 503 while the bridge cannot serve."""
        problem = self.problem()
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
            raise unreadable() from None
        if identity is not None:
            self._counts["ok"] += 1
        return identity

    async def require(self, request: HTTPConnection) -> Identity:
        """Return who this is, or refuse with 401."""
        identity = await self.identify(request)
        if identity is None:
            self._counts["missing"] += 1
            raise Refusal(
                401,
                "unauthorized",
                "no credentials: send Authorization: Bearer with a token",
                close_code=CloseCode.NOT_AUTHENTICATED,
            )
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

    # A connection's way in and out

    def new_connection(
        self, request: HTTPConnection, *, on_message: MessageHandler, is_authenticated: bool
    ) -> Connection:
        """Return a connection of the running loop, which is not among its user's yet."""
        manager = self.factory.manager
        hub = manager.hub()
        session = Session(
            new_id("c"), manager.limits, now=hub.loop.time(), is_authenticated=is_authenticated
        )
        connection = Connection(hub, session, on_message=on_message, on_closed=self._closed)
        if self.authenticator.needs_request:
            connection.request = request
        return connection

    async def prepare(self, connection: Connection, identity: Identity, wanted: Wanted) -> None:
        """Grant a connection what it wants, and find its place in the log; or refuse."""
        admitted = await self.admit(identity, wanted)
        connection.may_write = admitted.may_write
        now = self.factory.log.now_ms() / 1000
        connection.lives_until = lives_until(identity, self.factory.limits, now=now)
        try:
            connection.prepared = await connection.find_place(
                identity,
                log_id=admitted.log_id,
                after=wanted.after,
                thread_ids=wanted.thread_ids,
            )
        except LogError as error:
            logger.warning("a log cannot be read: %s", error, extra=told_of(connection))
            raise unreadable() from None

    def begin(self, connection: Connection, wanted: Wanted) -> None:
        """Count a prepared connection, whose transport is there, among its user's; say so to it."""
        manager = self.factory.manager
        assert connection.identity is not None
        if connection.session.status is not ConnectionStatus.CONNECTING:
            # It was closed while it was being prepared.
            connection.give_up()
            return
        manager.add(connection, connection.identity.user_id)
        if wanted.after not in KEYWORDS:
            manager.counters.reconnects += 1
        connection.begin()
        logger.info("connected after %s", connection.place, extra=told_of(connection))
        if self.factory.is_draining:
            # The drain began meanwhile, and closed those that it knew.
            connection.say_closing("draining", 1.0)

    def _closed(self, connection: Connection, code: int, reason: str) -> None:
        if connection.identity is not None:
            self.factory.manager.remove(connection, connection.identity.user_id)
        logger.info("closed with %s %s", code, reason, extra=told_of(connection))


def told_of(connection: Connection) -> dict[str, str]:
    """What a log record about a connection carries, for ``extra=``."""
    told = {"connection_id": connection.session.connection_id}
    if connection.identity is not None:
        told["user_id"] = connection.identity.user_id
        if connection.log_id != connection.identity.user_id:
            told["log_id"] = connection.log_id
    return told


def unreadable() -> Refusal:
    """The refusal while the log cannot be read."""
    return Refusal(503, "not_ready", "the event log cannot be read", retry_after=1)

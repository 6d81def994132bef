"""
Every exception that Catenary raises, and the WebSocket close codes.

::

    CatenaryError
    ├─ ConfigError          found at start; the command line exits with 2
    ├─ UsageError           the caller broke the API; never caught by the bridge
    │  ├─ LifecycleError    an event that the grammar of its run does not allow
    │  └─ EventTooLarge     data over the limit
    ├─ RunFailed            raised by agents: its text is shown to the user
    ├─ RunClosed            the run has ended, or belongs to another process
    ├─ AuthError            refused → a close code that forbids reconnecting
    ├─ ProtocolError        the peer broke the protocol
    ├─ PositionLost         a position that cannot be resumed → a gap, not a close
    ├─ LogError
    │  ├─ LogUnavailable    try again later
    │  ├─ LogFull           the intake holds all it may; try again later
    │  └─ RecordCorrupt     stop; what is stored cannot be read
    ├─ ConnectionClosed     code and reason
    └─ ValidationFailed     a bridge did not do what a validation waited for

    RunCancelled            a BaseException, as asyncio.CancelledError is

Details are attributes; the text is made in ``__str__``.
"""

from __future__ import annotations

import enum


class CloseCode(enum.IntEnum):
    """
    The close codes of ``catenary.v1``.

    4000-4499 ask the client to reconnect, 4500-4999 forbid it, so that a
    client needs no table.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTARTING = 1012
    OVERLOADED = 1013
    HEARTBEAT_MISSED = 4000
    TOKEN_EXPIRED = 4001
    RATE_LIMITED = 4002
    LOG_UNAVAILABLE = 4003
    AUTH_TIMEOUT = 4004
    PROTOCOL_ERROR = 4500
    NOT_AUTHENTICATED = 4501
    FORBIDDEN = 4503
    TOO_MANY_CONNECTIONS = 4505

    @property
    def is_final(self) -> bool:
        """Whether a client must not reconnect by itself."""
        return 4500 <= self <= 4999


class CatenaryError(Exception):
    """The base of every error of this package."""


class ConfigError(CatenaryError):
    """A setting is missing or wrong. The text says which, and what to do."""


class UsageError(CatenaryError):
    """The caller broke the API; the text says how to call it."""


class LifecycleError(UsageError):
    """
    An event that its run's grammar does not allow, such as a delta after the end.

    The event was not accepted; the run is as it was.
    """

    def __init__(self, run_id: str, problem: str) -> None:
        super().__init__(run_id, problem)
        self.run_id = run_id
        self.problem = problem

    def __str__(self) -> str:
        return f"run {self.run_id!r}: {self.problem}"


class EventTooLarge(UsageError):
    """Event data over the limit. The event was not accepted."""

    def __init__(self, type: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(type, size_bytes, limit_bytes)
        self.type = type
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"the data of {self.type!r} take {self.size_bytes:,} bytes; the limit is "
            f"{self.limit_bytes:,}. Send a reference, or several events."
        )


class RunFailed(CatenaryError):
    """
    Raised by an agent to end its run with an error that the user may read.

    Any other exception ends the run too, but only its class is named to the
    user: its text may hold what the user must not see.
    """

    def __init__(
        self, message: str, *, code: str = "agent_failed", retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class RunClosed(CatenaryError):
    """The run has ended, or is held by another process, so it takes no more events."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(run_id, reason)
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"run {self.run_id!r} takes no more events: {self.reason}"


class RunCancelled(BaseException):
    """
    The run was cancelled; raised in synchronous agents by the next verb.

    A ``BaseException``, so that an agent's ``except Exception`` lets it pass,
    as it lets :class:`asyncio.CancelledError` pass.
    """

    def __init__(self, run_id: str, reason: str | None = None) -> None:
        super().__init__(run_id, reason)
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return f"run {self.run_id!r} was cancelled{because}"


class AuthError(CatenaryError):
    """
    The credentials were refused.

    ``close_code`` and ``status`` say how (4501/401: who are you; 4503/403: you
    may not). ``reason`` is a short word for metrics and logs, such as
    ``expired``; the message is safe to show to the client: it never contains
    a token or another user's ids.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "invalid",
        close_code: CloseCode = CloseCode.NOT_AUTHENTICATED,
        status: int = 401,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.close_code = close_code
        self.status = status


class ProtocolError(CatenaryError):
    """
    The peer sent what ``catenary.v1`` does not allow.

    ``code`` is the error code of the wire, such as ``bad_json``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class PositionLost(CatenaryError):
    """
    A position that cannot be resumed exactly.

    Attributes:
        requested: The position asked for, as text.
        resumes_at: Where to read on: the place just before the next event that can be had.
        reason: ``retention``, ``epoch`` or ``future``.
    """

    def __init__(self, requested: str, resumes_at: str, reason: str) -> None:
        super().__init__(requested, resumes_at, reason)
        self.requested = requested
        self.resumes_at = resumes_at
        self.reason = reason

    def __str__(self) -> str:
        return f"events after {self.requested} are lost ({self.reason}); read on after {self.resumes_at}"


class LogError(CatenaryError):
    """The event log failed."""


class LogUnavailable(LogError):
    """The log cannot be reached or written now; trying again later may work."""


class LogFull(LogError):
    """
    The log's intake holds all it may, so an event was not accepted.

    It concerns events accepted and not yet committed, never what is retained.
    ``cause`` says why the log does not commit, where that is known.
    """

    def __init__(self, log_id: str, held_bytes: int, limit_bytes: int, cause: str | None) -> None:
        super().__init__(log_id, held_bytes, limit_bytes, cause)
        self.log_id = log_id
        self.held_bytes = held_bytes
        self.limit_bytes = limit_bytes
        self.cause = cause

    def __str__(self) -> str:
        because = f" The log does not commit: {self.cause}" if self.cause else ""
        return (
            f"the intake of {self.log_id!r} holds {self.held_bytes:,} bytes not yet committed; "
            f"the limit is {self.limit_bytes:,}.{because}"
        )


class RecordCorrupt(LogError):
    """A stored record cannot be read. Restore the store; see the how-to on restoring."""


class ConnectionClosed(CatenaryError):
    """The connection is closed; ``code`` and ``reason`` say why."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"closed with {self.code}{f' ({self.reason})' if self.reason else ''}"


class ValidationFailed(CatenaryError):
    """A bridge that is validated did not do what was waited for; the text says where it stands."""

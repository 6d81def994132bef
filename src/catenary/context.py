"""Whose events an emitter emits, and the states of a connection."""

from __future__ import annotations

import enum
import secrets

import msgspec

from catenary.errors import UsageError

ID_LIMIT = 256


class ConnectionStatus(enum.StrEnum):
    """Where a connection is in its life."""

    CONNECTING = "connecting"
    REPLAYING = "replaying"
    LIVE = "live"
    CLOSING = "closing"
    CLOSED = "closed"


def new_id(prefix: str) -> str:
    """Return a fresh id with 96 random bits, such as ``run_x3…``."""
    return f"{prefix}_{secrets.token_urlsafe(12)}"


class UserWebSocketContext(msgspec.Struct, frozen=True, kw_only=True):
    """
    The user, thread and run that an emitter speaks for.

    Ids that are left out are generated. ``log_id`` names the log, by default
    the user's own. ``connection_id`` is recorded and never restricts delivery:
    every connection of the user gets every event.

    Attributes:
        renews_run: Whether each further ``agent_started`` begins a run with a
            new id, as it does in a context that was made without ``run_id``.

    Raises:
        UsageError: If an id is not a string of 1 to 256 characters.
    """

    user_id: str
    thread_id: str | None = None
    run_id: str | None = None
    session_id: str | None = None
    connection_id: str | None = None
    log_id: str | None = None
    renews_run: bool = False

    def __post_init__(self) -> None:
        check_id("user_id", self.user_id)
        msgspec.structs.force_setattr(self, "renews_run", self.renews_run or self.run_id is None)
        for name, prefix in _GENERATED.items():
            value = getattr(self, name)
            if value is None:
                msgspec.structs.force_setattr(self, name, new_id(prefix))
            else:
                check_id(name, value)
        if self.log_id is None:
            msgspec.structs.force_setattr(self, "log_id", self.user_id)
        else:
            check_id("log_id", self.log_id)


_GENERATED = {
    "thread_id": "thread",
    "run_id": "run",
    "session_id": "session",
    "connection_id": "c",
}


def check_id(name: str, value: object) -> None:
    """
    Check that an id can be a name in a log.

    Raises:
        UsageError: If it is not a string of 1 to 256 characters that UTF-8 can carry.
    """
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a string, not {type(value).__name__}")
    if not 0 < len(value) <= ID_LIMIT:
        raise UsageError(f"{name} must have 1 to {ID_LIMIT} characters; it has {len(value)}")
    if not value.isprintable():
        raise UsageError(f"{name} must not hold control characters or lone surrogates")

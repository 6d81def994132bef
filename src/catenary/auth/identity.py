"""Who someone is, and what an application may say about them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from catenary.errors import AuthError, UsageError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

_OPAQUE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """
    A user, as their credentials name them.

    ``user_id`` and ``session_id`` are compared exactly as they came: no case
    is folded, no space trimmed, no Unicode normalised. ``expires_at`` is the
    end of the credential in seconds since 1970, without any leeway; None
    means that it names no end. ``claims`` may be shared with other
    connections of the same credential: read it, do not change it.

    Raises:
        AuthError: If an id is empty, longer than 256 characters, not text, or
            holds a control character or half of a surrogate pair.
    """

    user_id: str
    session_id: str | None = None
    expires_at: float | None = None
    groups: tuple[str, ...] = ()
    claims: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        _check_opaque("user id", self.user_id)
        if self.session_id is not None:
            _check_opaque("session id", self.session_id)


def _check_opaque(what: str, text: object) -> None:
    if not isinstance(text, str) or _OPAQUE.fullmatch(text) is None:
        raise AuthError(
            f"a {what} is a text of 1 to 256 characters without control characters "
            "and without halves of surrogate pairs",
            reason="claims",
        )


LogAccess: TypeAlias = Literal["read", "write"]

Authenticate: TypeAlias = "Callable[[HTTPConnection], Awaitable[Identity | str | None]]"
"""
An application's own way to tell who connects.

It returns an :class:`Identity`, a user id, or None to refuse. An
:class:`~catenary.errors.AuthError` or a starlette ``HTTPException`` from it
refuses in its own way (401, 403, or 503 for "try again"); any other exception
is logged and refused without detail.
"""

AuthorizeLog: TypeAlias = Callable[[Identity, str], LogAccess | Awaitable[LogAccess | None] | None]
"""What an identity may do with a log; plain or async."""

AuthorizeThread: TypeAlias = Callable[[Identity, str], bool | Awaitable[bool]]
"""Whether an identity may use a thread; plain or async."""


def authorize_log(identity: Identity, log_id: str) -> LogAccess | None:
    """The default rule: one's own log, and no other."""
    return "write" if log_id == identity.user_id else None


def authorize_thread(identity: Identity, thread_id: str) -> bool:  # noqa: ARG001 - the shape of a rule
    """The default rule: any thread, for threads live inside the log that was granted."""
    return True


async def granted_access(rule: AuthorizeLog, identity: Identity, log_id: str) -> LogAccess | None:
    """
    What ``rule`` grants ``identity`` on ``log_id``; None is a refusal.

    Raises:
        UsageError: If the rule answers anything but "read", "write" or None.
        Exception: Whatever the rule raises; nothing was granted then.
    """
    answer = rule(identity, log_id)
    if inspect.isawaitable(answer):
        answer = await answer
    if answer not in ("read", "write", None):
        raise UsageError(
            f'authorize_log answers "read", "write" or None; it answered a {type(answer).__name__}'
        )
    return answer


async def may_use_thread(rule: AuthorizeThread, identity: Identity, thread_id: str) -> bool:
    """
    Whether ``rule`` lets ``identity`` use ``thread_id``.

    Only True is a yes, so that a forgotten ``return`` refuses.

    Raises:
        Exception: Whatever the rule raises; nothing was granted then.
    """
    answer = rule(identity, thread_id)
    if inspect.isawaitable(answer):
        answer = await answer
    return answer is True

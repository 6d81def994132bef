"""Tickets: what a URL may carry instead of a token."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, get_args

import msgspec

from catenary.auth.identity import Identity
from catenary.errors import AuthError, UsageError

FIRST_USE = 30.0
SSE_LIFE_MAX = 12 * 3600.0

Purpose: TypeAlias = Literal["ws", "sse"]


class ExpiringStore(Protocol):
    """
    Values that a log keeps for a time, beside its events.

    Every node that shares the log sees the same ones. They need not survive
    the store's restart. All raise :class:`~catenary.errors.LogUnavailable` if
    the store cannot be reached.
    """

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep ``value`` for ``ttl`` seconds, in place of what ``key`` had."""
        ...

    async def take(self, key: str) -> bytes | None:
        """Remove and return a value, atomically: of many takers one gets it. None if expired."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value, which stays; None if there is none or it expired."""
        ...


class _Stored(msgspec.Struct, frozen=True):
    identity: Identity
    is_used: bool = False


class Tickets:
    """
    Random texts that stand for an identity, for a short time.

    A ticket holds 256 random bits; the store sees only their SHA-256, so who
    reads the store cannot connect. It must be used within 30 s. One for
    ``ws`` works once. One for ``sse`` may be presented again, because a
    browser's ``EventSource`` reconnects to the same URL, until the token that
    it was issued for expires, or for 12 h.
    """

    def __init__(self, log: ExpiringStore, *, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock

    async def issue(self, identity: Identity, *, purpose: Purpose) -> str:
        """
        A new ticket for ``identity``, whose ``expires_at`` goes with it.

        Raises:
            AuthError: ``expired`` if the identity has.
            UsageError: If the purpose is unknown, or a claim is nothing that
                JSON can say.
            LogError: If it could not be stored.
        """
        if purpose not in get_args(Purpose):
            raise UsageError(f"a ticket is for one of {', '.join(get_args(Purpose))}")
        if self._life(identity) <= 0:
            raise AuthError("the token has expired", reason="expired")
        ticket = secrets.token_urlsafe(32)
        try:
            value = msgspec.json.encode(_Stored(identity))
        except (TypeError, ValueError) as error:
            raise UsageError("the claims of an identity with tickets must fit in JSON") from error
        await self._log.put(_key(ticket, purpose), value, FIRST_USE)
        return ticket

    async def redeem(self, ticket: str, purpose: Purpose) -> Identity:
        """
        The identity that ``ticket`` stands for.

        Raises:
            AuthError: ``ticket`` if it is unknown, used, expired, or for
                another purpose; which of these is not told.
            LogError: If the store could not be asked.
        """
        if not _is_plausible(ticket):
            raise _refused()
        key = _key(ticket, purpose)
        value = await (self._log.take(key) if purpose == "ws" else self._log.get(key))
        stored = _decoded(value)
        life = self._life(stored.identity)
        if life <= 0:
            raise _refused()
        if purpose == "sse" and not stored.is_used:
            # Kept short until its first use, so that tickets nobody uses do not pile up.
            used = msgspec.json.encode(_Stored(stored.identity, is_used=True))
            await self._log.put(key, used, life)
        return stored.identity

    def _life(self, identity: Identity) -> float:
        if identity.expires_at is None:
            return SSE_LIFE_MAX
        return min(identity.expires_at - self._clock(), SSE_LIFE_MAX)


def _is_plausible(ticket: str) -> bool:
    return len(ticket) == 43 and ticket.isascii()


def _key(ticket: str, purpose: Purpose) -> str:
    # The purpose is part of the key: presenting a ticket on the wrong wire does not spend it.
    return f"ticket:{purpose}:{hashlib.sha256(ticket.encode('ascii')).hexdigest()}"


def _decoded(value: bytes | None) -> _Stored:
    if value is not None:
        # Another version of this program may have stored it.
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(value, type=_Stored)
    raise _refused()


def _refused() -> AuthError:
    return AuthError("the ticket is unknown, used or expired; ask for a new one", reason="ticket")

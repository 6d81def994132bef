"""Where a client's credentials come from."""

from __future__ import annotations

import base64
import binascii
import inspect
from collections.abc import Awaitable, Callable

import msgspec

Token = str | Callable[[], str | Awaitable[str]] | None
"""A token, or a function (plain or async) that brings a fresh one for each attempt."""

_REFRESH_BEFORE = 60.0


class _Claims(msgspec.Struct):
    exp: float | None = None


class TokenSource:
    """A client's tokens: always the same one, or a fresh one from a function."""

    def __init__(self, token: Token) -> None:
        self._token = token

    @property
    def is_fresh_each_time(self) -> bool:
        """Whether asking again may bring another token."""
        return callable(self._token)

    async def fetch(self) -> str | None:
        """Bring the token for one attempt. What the function raises goes through."""
        if not callable(self._token):
            return self._token
        token = self._token()
        return await token if inspect.isawaitable(token) else token


def expiry(token: str | None) -> float | None:
    """
    When a token expires, in seconds since 1970, as its own payload says.

    Nothing is verified: the server does that, and this only decides when to
    ask for another. None if the token is no JWT or does not say.
    """
    parts = (token or "").split(".")
    if len(parts) != 3:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(payload, type=_Claims).exp
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return None


def refresh_wait(expires_at: float, now: float) -> float:
    """
    How many seconds from ``now`` (both since 1970) to ask for the next token.

    A minute before the end, or in the middle of what is left of a short life.
    """
    left = expires_at - now
    return max(1.0, left - _REFRESH_BEFORE, left / 2)

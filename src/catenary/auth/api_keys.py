"""API keys: what producers and operators show instead of a user's credentials."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING

from catenary.errors import ConfigError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

KEY_MIN_CHARS = 16


class ApiKeys:
    """
    The keys that count for one purpose; several, so that one can be replaced without a pause.

    Compared in constant time. None of them means that no key opens anything.

    Raises:
        ConfigError: If a key is under 16 characters or cannot stand in a header.
    """

    def __init__(self, keys: str | Sequence[str] | None = None) -> None:
        given = [keys] if isinstance(keys, str) else list(keys or ())
        for key in given:
            if len(key) < KEY_MIN_CHARS or not key.isascii() or not key.isprintable():
                raise ConfigError(
                    f"an API key is at least {KEY_MIN_CHARS} printable ASCII characters; make one "
                    "with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
                )
        self._digests = tuple(_digest(key.encode()) for key in given)

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._digests)})"

    @property
    def is_empty(self) -> bool:
        """Whether no key is configured."""
        return not self._digests

    def accepts(self, request: HTTPConnection) -> bool:
        """Whether ``request`` bears one of the keys in its ``Authorization`` header."""
        is_accepted = False
        for name, value in request.scope["headers"]:
            if name == b"authorization":
                scheme, _, key = value.partition(b" ")
                if scheme.lower() == b"bearer":
                    shown = _digest(key.strip())
                    # Every key is compared, so that the time tells nothing of which.
                    for digest in self._digests:
                        is_accepted |= hmac.compare_digest(shown, digest)
        return is_accepted


def _digest(key: bytes) -> bytes:
    # Of equal length whatever was shown.
    return hashlib.sha256(key).digest()

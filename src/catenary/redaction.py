"""
Secrets taken out of event data before the log.

What counts is the key: the strings under one whose last word names a secret
become ``[REDACTED]``, at any depth below it. Numbers, booleans and nulls are
left, so ``max_tokens`` and ``usage.total_tokens`` survive. Free text is not
searched: a secret inside a sentence stays.

A key's words are what lies between ``_``, ``-``, spaces, dots and camelCase
humps; ``APIKey``, ``api-key`` and ``apiKey2`` have the same last words.
Numbers at the end do not count, nor do ``value`` and ``header``. ``key`` alone
names no secret; ``api_key``, ``private_key`` and their like do.
"""

from __future__ import annotations

import functools
import operator
import re
from typing import Any

REDACTED = "[REDACTED]"
"""What stands in the place of a secret."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_TRAILERS = frozenset({"v", "value", "header"})

# A word may end with one of these, as in `pgpassword` or `authtoken`.
_ENDINGS = (
    "password", "passwd", "passphrase", "passcode", "secret", "token",
    "authorization", "credential", "cookie",
)  # fmt: skip
_SHORT = frozenset({"auth", "bearer", "cred", "jwt", "otp", "pw", "pwd"})
_KEY_QUALIFIERS = frozenset({
    "access", "account", "admin", "anthropic", "api", "app", "auth", "aws", "azure", "client",
    "decryption", "deploy", "encryption", "gpg", "hmac", "jwt", "license", "master", "openai",
    "pass", "pgp", "private", "recovery", "root", "rsa", "secret", "server", "service", "session",
    "shared", "signing", "ssh", "ssl", "stripe", "subscription", "tls", "webhook",
})  # fmt: skip
_LONGEST_CACHED = 64


def redact(value: Any) -> Any:
    """
    Return ``value`` without its secrets.

    ``value`` consists of builtins, as :func:`~catenary.encoding.to_builtins`
    makes them, and is not changed. It is returned itself if it holds no
    secret; else parts without one are shared with it. Redacting again changes
    nothing.
    """
    return _cleared(value, is_secret_below=False)


def _cleared(value: Any, *, is_secret_below: bool) -> Any:
    if isinstance(value, str):
        return REDACTED if is_secret_below and value != REDACTED else value
    if isinstance(value, list):
        parts = [_cleared(part, is_secret_below=is_secret_below) for part in value]
        return value if all(map(operator.is_, parts, value)) else parts
    if isinstance(value, dict):
        fields = {
            key: _cleared(part, is_secret_below=is_secret_below or is_secret(key))
            for key, part in value.items()
        }
        return value if all(map(operator.is_, fields.values(), value.values())) else fields
    return value


def is_secret(key: Any) -> bool:
    """Whether the strings under this key are secrets."""
    if not isinstance(key, str):
        return False
    return _names_secret(key) if len(key) <= _LONGEST_CACHED else _names_secret.__wrapped__(key)


@functools.lru_cache(maxsize=4096)
def _names_secret(key: str) -> bool:
    words = [word.lower() for word in _WORD.findall(key)]
    while words and (words[-1].isdigit() or words[-1] in _TRAILERS):
        words.pop()
    if not words:
        return False
    last = words[-1].removesuffix("s")
    if last == "key":
        return len(words) > 1 and words[-2] in _KEY_QUALIFIERS
    if last.endswith("key"):
        return last.removesuffix("key") in _KEY_QUALIFIERS or last.endswith("apikey")
    return last in _SHORT or last.endswith(_ENDINGS)

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

import enum
import functools
import json
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


class JsonRedactor:
    """
    Takes the secrets out of JSON that comes as text, piece by piece.

    What it returns, put together, is the JSON of what :func:`redact` returns for
    the whole, however the text is cut. Text that is no JSON comes back somehow;
    after an error in it strings may be taken for keys.
    """

    def __init__(self) -> None:
        self._below: list[bool] = []
        """For each open container, whether the strings in it are secrets."""
        self._is_object: list[bool] = []
        self._is_key = False
        self._is_secret = False
        self._in: _Text = _Text.STRUCTURE
        self._is_escaped = False
        self._key = ""

    def feed(self, text: str) -> str:
        """Return the next piece, without its secrets."""
        out: list[str] = []
        at = 0
        while at < len(text):
            if self._in is _Text.STRUCTURE:
                at = self._structure(text, at, out)
            else:
                at = self._string(text, at, out)
        return "".join(out)

    def _structure(self, text: str, at: int, out: list[str]) -> int:
        found = _STRUCTURAL.search(text, at)
        if found is None:
            out.append(text[at:])
            return len(text)
        end = found.end()
        out.append(text[at:end])
        self._step(found.group(), out)
        return end

    def _step(self, mark: str, out: list[str]) -> None:
        if mark == '"':
            self._open_string(out)
        elif mark in "{[":
            below = self._is_secret_here()
            self._below.append(below)
            self._is_object.append(mark == "{")
            self._is_key = mark == "{"
        elif mark in "}]":
            if self._below:
                self._below.pop()
                self._is_object.pop()
            self._is_key = False
        else:
            self._is_key = mark == "," and bool(self._is_object) and self._is_object[-1]

    def _is_secret_here(self) -> bool:
        if not self._below:
            return False
        return self._is_secret if self._is_object[-1] else self._below[-1]

    def _open_string(self, out: list[str]) -> None:
        if self._is_key:
            self._in, self._key = _Text.KEY, ""
        elif self._is_secret_here():
            self._in = _Text.SECRET
            out.append(REDACTED)
        else:
            self._in = _Text.VALUE

    def _string(self, text: str, at: int, out: list[str]) -> int:
        end, is_closed = self._end_of_string(text, at)
        said = text[at:end]
        if self._in is _Text.KEY:
            self._key += said
        if self._in is not _Text.SECRET:
            out.append(said)
        elif is_closed:
            out.append('"')
        if is_closed:
            if self._in is _Text.KEY:
                self._is_secret = self._below[-1] or is_secret(_decoded(self._key[:-1]))
            self._in = _Text.STRUCTURE
        return end

    def _end_of_string(self, text: str, at: int) -> tuple[int, bool]:
        """Return where this piece of a string ends, and whether with its quotation mark."""
        while at < len(text):
            if self._is_escaped:
                self._is_escaped = False
                at += 1
                continue
            found = _IN_STRING.search(text, at)
            if found is None:
                break
            at = found.end()
            if found.group() == '"':
                return at, True
            self._is_escaped = True
        return len(text), False


class _Text(enum.Enum):
    STRUCTURE = enum.auto()
    KEY = enum.auto()
    VALUE = enum.auto()
    SECRET = enum.auto()


_STRUCTURAL = re.compile(r'["{}\[\],:]')
_IN_STRING = re.compile(r'["\\]')


def _decoded(key: str) -> str:
    try:
        return str(json.loads(f'"{key}"', strict=False))
    except ValueError:
        return key

"""JSON Web Tokens: verifying them, and signing some for development."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from catenary.auth.claims import ClaimRules, accepted
from catenary.auth.identity import Identity
from catenary.errors import AuthError, ConfigError

if TYPE_CHECKING:
    from catenary.auth.keys import KeySource

TOKEN_MAX_BYTES = 8 * 1024
CACHED_MAX = 8192

_T = TypeVar("_T")
_log = logging.getLogger("catenary.auth")
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")


class JwtVerifier:
    """
    Tells who a token names, if it was signed with a configured key.

    Exactly one of ``secret``, ``key_file`` (a PEM public key, or a secret) and
    ``jwks_url`` says which keys count. The algorithms follow from the kind of
    key, or are the listed ones of HS256, RS256, ES256 and EdDSA; a token does
    not choose. ``exp`` and ``sub`` are required; ``exp`` is taken until
    ``leeway`` seconds after it, and lies at most ``max_lifetime`` seconds after
    ``iat`` (or after now). ``aud`` and ``iss`` are checked where ``audience``
    and ``issuer`` are given.

    Verified tokens are remembered (by a digest, the 8,192 last used) until
    their ``exp``; with ``jwks_url`` for at most 10 minutes, so that a key
    withdrawn there is noticed.

    Raises:
        ConfigError: If there is not exactly one kind of key, or it does not go
            with the algorithms, or it is too weak or cannot be read.
    """

    def __init__(
        self,
        *,
        secret: str | bytes | None = None,
        key_file: str | Path | None = None,
        jwks_url: str | None = None,
        algorithms: Sequence[str] = (),
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway: float = 30,
        max_lifetime: float = 24 * 3600,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = _key_source(secret, key_file, jwks_url, algorithms, clock)
        self._rules = ClaimRules(
            audience=accepted(audience),
            issuer=accepted(issuer),
            leeway=leeway,
            max_lifetime=max_lifetime,
        )
        self._clock = clock
        self._remembered: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        if jwks_url is not None and not self._rules.audience:
            _log.warning(
                "no audience is set: a token that the issuer of these keys gave for any other "
                "application is taken here too"
            )

    def verify_cached(self, token: str) -> Identity | None:
        """The identity of a token verified before, without verifying it again; None if unknown."""
        if not _is_plausible(token):
            return None
        digest = _digest(token)
        known = self._remembered.get(digest)
        if known is None:
            return None
        identity, until = known
        if until <= self._clock():
            self._remembered.pop(digest, None)
            return None
        self._remembered[digest] = self._remembered.pop(digest, known)
        return identity

    async def verify(self, token: str) -> Identity:
        """
        The identity that ``token`` names.

        Raises:
            AuthError: With ``reason`` ``malformed``, ``algorithm``,
                ``signature``, ``expired``, ``lifetime``, ``audience``,
                ``issuer`` or ``claims``; ``keys_unavailable`` (503) may pass
                by itself. The message never holds any of the token.
        """
        identity = self.verify_cached(token)
        if identity is not None:
            return identity
        parts = _parse(token)
        if parts.header.alg not in self._keys.algorithms:
            raise AuthError("the token's algorithm is not taken here", reason="algorithm")
        key = await self._keys.find(parts.header.alg, parts.header.kid)
        if not key.verifies(parts.signed, parts.signature):
            raise AuthError("the token's signature is wrong", reason="signature")
        identity = self._rules.identity(_decoded(_decode_claims, parts.payload), self._clock())
        self._remember(token, identity)
        return identity

    def _remember(self, token: str, identity: Identity) -> None:
        until = min(identity.expires_at or 0.0, self._keys.trusted_until())
        self._remembered[_digest(token)] = (identity, until)
        if len(self._remembered) > CACHED_MAX:
            self._remembered.popitem(last=False)


def _key_source(
    secret: str | bytes | None,
    key_file: str | Path | None,
    jwks_url: str | None,
    algorithms: Sequence[str],
    clock: Callable[[], float],
) -> KeySource:
    if [secret, key_file, jwks_url].count(None) != 2:
        raise ConfigError("a JWT verifier needs one of: a secret, a key file, a JWKS address")
    # Cryptography takes as long to load as all of Catenary; only verifiers need it.
    from catenary.auth import keys  # noqa: PLC0415

    keys.check_algorithms(algorithms)
    if secret is not None:
        return keys.static_key(keys.secret_key(secret), algorithms)
    if key_file is not None:
        return keys.static_key(keys.file_key(key_file), algorithms)
    # The HTTP client likewise.
    from catenary.auth.jwks import RemoteKeys  # noqa: PLC0415

    return RemoteKeys(jwks_url or "", algorithms=algorithms, clock=clock)


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Parts(NamedTuple):
    header: _Header
    signed: bytes
    payload: bytes
    signature: bytes


_decode_header = msgspec.json.Decoder(_Header).decode
_decode_claims = msgspec.json.Decoder(dict[str, Any]).decode


def _is_plausible(token: object) -> bool:
    return isinstance(token, str) and len(token) <= TOKEN_MAX_BYTES and token.isascii()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()


def _parse(token: str) -> _Parts:
    match = _COMPACT.fullmatch(token) if _is_plausible(token) else None
    if match is None:
        raise _malformed()
    header_text, payload_text, signature_text = match.groups()
    header = _decoded(_decode_header, _unpadded(header_text))
    # Extensions that a token calls critical are unknown here (RFC 7515, 4.1.11).
    if header.crit is not msgspec.UNSET or header.b64 is not msgspec.UNSET:
        raise _malformed()
    signed = f"{header_text}.{payload_text}".encode("ascii")
    return _Parts(header, signed, _unpadded(payload_text), _unpadded(signature_text))


def _unpadded(text: str) -> bytes:
    """Decode base64url; of the spellings of the same bytes only the canonical one is taken."""
    with contextlib.suppress(binascii.Error):
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if _encoded(raw) == text:
            return raw
    raise _malformed()


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decoded(decode: Callable[[bytes], _T], raw: bytes) -> _T:
    # Raised outside the handler, so that no decoder's error, which may hold
    # what it read, hangs on to ours.
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return decode(raw)
    raise _malformed()


def _malformed() -> AuthError:
    return AuthError(
        f"the token is not a signed JWT of at most {TOKEN_MAX_BYTES:,} bytes", reason="malformed"
    )


def sign_token(
    user_id: str,
    *,
    secret: str | bytes,
    ttl: float = 3600,
    session_id: str | None = None,
    groups: Sequence[str] = (),
    issuer: str | None = None,
    audience: str | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """
    An HS256 token for ``user_id``, valid for ``ttl`` seconds from now; for development.

    Raises:
        AuthError: If an id is not one that a verifier takes.
        ConfigError: If the secret is under 32 bytes.
    """
    from catenary.auth.keys import secret_key  # noqa: PLC0415 - as in _key_source

    named = Identity(user_id=user_id, session_id=session_id, groups=tuple(groups))
    now = int(clock())
    claims = {
        "sub": named.user_id,
        "iat": now,
        "exp": now + int(ttl),
        "sid": named.session_id,
        "groups": list(named.groups) or None,
        "iss": issuer,
        "aud": audience,
    }
    present = {name: value for name, value in claims.items() if value is not None}
    parts = ({"alg": "HS256", "typ": "JWT"}, present)
    signed = ".".join(_encoded(msgspec.json.encode(part)) for part in parts)
    signature = hmac.digest(secret_key(secret).material, signed.encode("ascii"), "sha256")
    return f"{signed}.{_encoded(signature)}"

"""The keys that verify tokens, and the algorithms they are for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import get_default_algorithms

from catenary.errors import ConfigError

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

SECRET_ALGORITHM = "HS256"  # noqa: S105 - an algorithm's name
PUBLIC_ALGORITHMS = ("RS256", "ES256", "EdDSA")
SECRET_MIN_BYTES = 32
RSA_MIN_BITS = 2048

_IMPLEMENTATIONS: dict[str, Algorithm] = {
    name: implementation
    for name, implementation in get_default_algorithms().items()
    if name in (SECRET_ALGORITHM, *PUBLIC_ALGORITHMS)
}


@dataclass(frozen=True)
class Key:
    """One key, for one algorithm; its text form shows neither."""

    algorithm: str
    material: Any = field(repr=False)
    kid: str | None = None

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``signed``."""
        return _IMPLEMENTATIONS[self.algorithm].verify(signed, self.material, signature)


class KeySource(Protocol):
    """Where a verifier finds its keys."""

    algorithms: frozenset[str]

    async def find(self, algorithm: str, kid: str | None) -> Key:
        """
        The key for a token of ``algorithm`` that names ``kid``.

        Raises:
            AuthError: ``signature`` if there is no such key, or
                ``keys_unavailable`` if that cannot be told now.
        """
        ...

    def trusted_until(self) -> float:
        """Until when (seconds since 1970) what these keys verified may be remembered."""
        ...


class StaticKey:
    """One key, from the configuration; whatever ``kid`` a token names, it is the one."""

    def __init__(self, key: Key) -> None:
        self.algorithms = frozenset([key.algorithm])
        self._key = key

    async def find(self, algorithm: str, kid: str | None) -> Key:
        return self._key

    def trusted_until(self) -> float:
        return math.inf


def secret_key(secret: str | bytes) -> Key:
    """
    The key that a shared secret is.

    Raises:
        ConfigError: If it is under 32 bytes (RFC 7518, 3.2), or is a PEM key,
            which is public and so would let everybody sign.
    """
    raw = secret.encode() if isinstance(secret, str) else bytes(secret)
    if b"-----BEGIN" in raw:
        raise ConfigError("the JWT secret is a PEM key. Give a public key as a key file instead.")
    if len(raw) < SECRET_MIN_BYTES:
        raise ConfigError(
            f"the JWT secret has {len(raw)} bytes; HS256 needs at least {SECRET_MIN_BYTES}. "
            "Make one with: openssl rand -hex 32"
        )
    return Key(SECRET_ALGORITHM, raw)


def file_key(path: str | Path) -> Key:
    """
    The key in a file: a PEM public key, or a secret.

    The line end that an editor leaves after a secret of plain ASCII is not
    part of it.

    Raises:
        ConfigError: If the file cannot be read or holds no key fit for this.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"the JWT key file {path} cannot be read: {error.strerror}") from error
    if b"-----BEGIN" in raw:
        return _pem_key(raw, path)
    return secret_key(raw.rstrip(b"\r\n") if raw.isascii() else raw)


def _pem_key(raw: bytes, path: str | Path) -> Key:
    if b"PRIVATE KEY-----" in raw:
        raise ConfigError(
            f"the JWT key file {path} holds a private key; verifying needs only the public one: "
            "openssl pkey -pubout -in private.pem -out public.pem"
        )
    try:
        material = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"the JWT key file {path} holds no PEM public key (-----BEGIN PUBLIC KEY-----)"
        ) from error
    algorithm = algorithm_of(material)
    if algorithm is None:
        raise ConfigError(
            f"the JWT key file {path} holds a key of a kind that is not used here: RSA of at least "
            f"{RSA_MIN_BITS} bits (RS256), EC P-256 (ES256) and Ed25519 (EdDSA) are"
        )
    return Key(algorithm, material)


def algorithm_of(material: object) -> str | None:
    """The one algorithm that a public key is used for here; None if it is unfit."""
    if isinstance(material, RSAPublicKey):
        return "RS256" if material.key_size >= RSA_MIN_BITS else None
    if isinstance(material, EllipticCurvePublicKey):
        return "ES256" if isinstance(material.curve, SECP256R1) else None
    return "EdDSA" if isinstance(material, Ed25519PublicKey) else None


def check_algorithms(names: Sequence[str]) -> None:
    """
    Check a configured list of algorithms, before it meets a key.

    Raises:
        ConfigError: If a name is unknown, or HS256 stands beside others: a
            public key would then do as a secret.
    """
    if isinstance(names, str):
        raise ConfigError(f"the JWT algorithms are a list of names, such as [{names!r}]")
    known = (SECRET_ALGORITHM, *PUBLIC_ALGORITHMS)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"unknown JWT algorithms: {', '.join(map(str, unknown))}. Known: {', '.join(known)}"
        )
    if SECRET_ALGORITHM in names and len(set(names)) > 1:
        raise ConfigError(
            f"{SECRET_ALGORITHM} is for secrets and {', '.join(PUBLIC_ALGORITHMS)} for public "
            "keys; one verifier takes one kind"
        )


def static_key(key: Key, algorithms: Sequence[str]) -> StaticKey:
    """
    A source of one key, checked against the algorithms that were configured.

    Raises:
        ConfigError: If ``algorithms`` names others and not the key's own.
    """
    if algorithms and key.algorithm not in algorithms:
        raise ConfigError(
            f"the JWT key is for {key.algorithm}, the algorithms given are {', '.join(algorithms)}"
        )
    return StaticKey(key)

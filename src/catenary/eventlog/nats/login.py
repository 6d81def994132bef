"""
How a client shows a NATS server who it is: passwords, tokens, keys, credential files.

Keys and their encoding: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from catenary.errors import ConfigError

_SEED_BYTES = 32
_USER = 20 << 3
"""The prefix of a user's public key, which then begins with ``U``."""

_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----\s*(\S+)\s*------?END")


class Key:
    """
    A user's key pair.

    Raises:
        ConfigError: If the seed is none.
    """

    def __init__(self, seed: str) -> None:
        text = seed.strip()
        try:
            raw = base64.b32decode(text + "=" * (-len(text) % 8))
        except binascii.Error:
            raw = b""
        body, checksum = raw[:-2], raw[-2:]
        # Two bytes say that it is a seed and whose: of a user the text begins with SU.
        if (
            not text.startswith("SU")
            or len(body) != 2 + _SEED_BYTES
            or _crc16(body).to_bytes(2, "little") != checksum
        ):
            raise ConfigError("this is no seed of a NATS user: such a text begins with SU")
        self._private = Ed25519PrivateKey.from_private_bytes(body[2:])

    @property
    def public(self) -> str:
        """The public key, as NATS writes it."""
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        body = bytes([_USER]) + raw
        text = base64.b32encode(body + _crc16(body).to_bytes(2, "little"))
        return text.decode().rstrip("=")

    def sign(self, nonce: str) -> str:
        """Return the signature of what a server asks to be signed."""
        signature = self._private.sign(nonce.encode())
        return base64.urlsafe_b64encode(signature).decode().rstrip("=")


def _crc16(data: bytes) -> int:
    """Return the checksum of keys: CRC-16 with the polynomial 0x1021, from 0."""
    return binascii.crc_hqx(data, 0)


def credentials(path: Path) -> dict[str, str]:
    """
    Return the blocks of a credentials file: ``NATS USER JWT`` and ``USER NKEY SEED``.

    Raises:
        ConfigError: If it cannot be read, or lacks one of them.
    """
    blocks = dict(_BLOCK.findall(read(path)))
    if {"NATS USER JWT", "USER NKEY SEED"} - blocks.keys():
        raise ConfigError(f"{path} is no credentials file: it has no user's JWT and seed")
    return blocks


def read(path: Path) -> str:
    """Return what a file holds. Raises ``ConfigError`` if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def proof(
    nonce: str,
    *,
    username: str | None,
    password: str | None,
    credentials_file: str,
    seed_file: str,
) -> dict[str, Any]:
    """Return what ``CONNECT`` says of who connects. Raises ``ConfigError`` for a bad file."""
    if credentials_file:
        blocks = credentials(Path(credentials_file))
        signature = Key(blocks["USER NKEY SEED"]).sign(nonce)
        return {"jwt": blocks["NATS USER JWT"], "sig": signature}
    if seed_file:
        key = Key(read(Path(seed_file)))
        return {"nkey": key.public, "sig": key.sign(nonce)}
    if username is None:
        return {}
    if password is None:
        return {"auth_token": username}
    return {"user": username, "pass": password}

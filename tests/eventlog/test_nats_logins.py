"""Logging in to real NATS servers: keys, credential files, TLS."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from catenary.errors import ConfigError, LogUnavailable
from catenary.eventlog.nats.log import NatsLog
from tests.eventlog.support import USER, append, event
from tests.nats_server import NatsServer

_USER, _ACCOUNT, _OPERATOR = 20 << 3, 0, 14 << 3
_SEED = 18 << 3


def _text(raw: bytes) -> str:
    return (
        base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")
    )


class Party:
    """An operator, an account or a user of a test, with its key."""

    def __init__(self, kind: int, secret: bytes) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = _text(
            bytes([kind]) + self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        )
        self.seed = _text(bytes([_SEED | kind >> 5, (kind & 31) << 3]) + secret)

    def vouch(self, other: Party, name: str, about: dict[str, Any]) -> str:
        """Return a JWT of another party, signed by this one."""
        claims = {
            "jti": name, "iat": 1, "iss": self.public, "name": name, "sub": other.public,
            "nats": {"version": 2, **about},
        }  # fmt: skip
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        parts = [_base64(json.dumps(part).encode()) for part in (head, claims)]
        return ".".join([*parts, _base64(self.key.sign(".".join(parts).encode()))])


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def _appends(url: str) -> None:
    log = NatsLog(url)
    assert (await append(log, event(1)))[0].seq == 1
    # The listening connection has logged in too.
    await log.watch(USER, Waiting())
    await log.stop()


class Waiting:
    """A watcher that does nothing."""

    is_awake = True

    def wake(self) -> None:
        """Nothing waits."""


async def test_a_key_logs_in(tmp_path: Path) -> None:
    """The server's challenge is signed with the user's seed; another seed is refused."""
    user, other = Party(_USER, b"u" * 32), Party(_USER, b"o" * 32)
    users = f"authorization {{ users: [{{nkey: {user.public}}}] }}"
    with NatsServer(tmp_path / "nats", settings=users) as own:
        (tmp_path / "seed").write_text(f"{user.seed}\n")
        await _appends(f"{own.url}?nkey={tmp_path}/seed")
        (tmp_path / "seed").write_text(other.seed)
        with pytest.raises(ConfigError, match="Check the user") as refused:
            await NatsLog(f"{own.url}?nkey={tmp_path}/seed").start()
        assert other.seed not in str(refused.value)


async def test_a_credentials_file_logs_in(tmp_path: Path) -> None:
    """A user's JWT and seed, as ``nsc`` writes them, where accounts are an operator's."""
    operator, account = Party(_OPERATOR, b"O" * 32), Party(_ACCOUNT, b"A" * 32)
    system, user = Party(_ACCOUNT, b"S" * 32), Party(_USER, b"U" * 32)
    all_of_it = dict.fromkeys(
        ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage",
         "disk_storage", "streams", "consumer"), -1,
    )  # fmt: skip
    limits = {"limits": {**all_of_it, "wildcards": True}}
    files = {
        "operator": operator.vouch(operator, "op", {"type": "operator"}),
        "account": operator.vouch(account, "app", {"type": "account", **limits}),
        "system": operator.vouch(system, "sys", {"type": "account"}),
        "user": account.vouch(
            user, "bridge", {"type": "user", "subs": -1, "data": -1, "payload": -1}
        ),
    }
    trust = (
        f"operator: {files['operator']}\nresolver: MEMORY\nsystem_account: {system.public}\n"
        f"resolver_preload: {{ {account.public}: {files['account']}\n"
        f"{system.public}: {files['system']} }}"
    )
    creds = tmp_path / "bridge.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{files['user']}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    with NatsServer(tmp_path / "nats", settings=trust) as own:
        await _appends(f"{own.url}?creds={creds}")
        with pytest.raises(ConfigError, match="Check the user"):
            await NatsLog(own.url).start()


async def test_over_tls(tmp_path: Path) -> None:
    """The server's certificate is checked; its authority is named in the URL."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = f'tls {{ cert_file: "{tmp_path}/cert.pem", key_file: "{tmp_path}/key.pem" }}'
    with NatsServer(tmp_path / "nats", settings=settings) as own:
        url = own.url.replace("nats://", "tls://")
        await _appends(f"{url}?ssl_ca_certs={tmp_path}/ca.pem")
        with pytest.raises(LogUnavailable, match="certificate verify failed"):
            await NatsLog(url).start()

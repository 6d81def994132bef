"""Which keys and algorithms a verifier may be made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from catenary.auth import JwtVerifier
from catenary.errors import AuthError, ConfigError

from .support import NOW, PRIVATE_KEYS, SECRET, Clock, claims, pem, signed


def test_exactly_one_kind_of_key_is_needed() -> None:
    choices: list[dict[str, Any]] = [
        {},
        {"secret": SECRET, "jwks_url": "https://issuer.example/jwks"},
        {"secret": SECRET, "key_file": "k.pem", "jwks_url": "https://issuer.example/jwks"},
    ]
    for choice in choices:
        with pytest.raises(ConfigError, match="one of"):
            JwtVerifier(**choice)


@pytest.mark.parametrize("secret", ["", "x" * 31, b"x" * 31])
def test_a_short_secret_is_refused_without_showing_it(secret: str | bytes) -> None:
    with pytest.raises(ConfigError, match="at least 32") as refused:
        JwtVerifier(secret=secret)
    assert "xxx" not in str(refused.value)


def test_a_public_key_given_as_a_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="PEM"):
        JwtVerifier(secret=pem(PRIVATE_KEYS["RS256"]))


@pytest.mark.parametrize(
    "algorithms",
    [["RS256"], ["HS256", "RS256"], ["none"], ["HS512"], ["HS256", "none"], "HS256", [None]],
)
def test_a_secret_goes_with_hs256_and_nothing_else(algorithms: Any) -> None:
    with pytest.raises(ConfigError, match=r"algorithms|kind"):
        JwtVerifier(secret=SECRET, algorithms=algorithms)


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_a_public_key_never_verifies_as_a_secret(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(PRIVATE_KEYS[algorithm]))
    for algorithms in (["HS256"], ["HS256", algorithm]):
        with pytest.raises(ConfigError):
            JwtVerifier(key_file=path, algorithms=algorithms)
    with pytest.raises(ConfigError):
        JwtVerifier(jwks_url="https://issuer.example/jwks", algorithms=["HS256"])


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
async def test_a_key_file_verifies_its_own_algorithm(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(PRIVATE_KEYS[algorithm]))
    token = signed(claims(), PRIVATE_KEYS[algorithm], algorithm)
    for algorithms in ([], [algorithm], ["RS256", "ES256", "EdDSA"]):
        verifier = JwtVerifier(key_file=str(path), algorithms=algorithms, clock=Clock())
        assert (await verifier.verify(token)).user_id == "user_123"
    other = next(name for name in PRIVATE_KEYS if name != algorithm)
    with pytest.raises(AuthError) as refused:
        await JwtVerifier(key_file=path, clock=Clock()).verify(
            signed(claims(), PRIVATE_KEYS[other], other)
        )
    assert refused.value.reason == "algorithm"
    with pytest.raises(ConfigError, match=algorithm):
        JwtVerifier(key_file=path, algorithms=[other])


async def test_a_key_file_may_hold_a_secret_with_the_line_end_of_an_editor(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for text in (SECRET, SECRET + "\n", SECRET + "\r\n"):
        path.write_text(text, newline="")
        verifier = JwtVerifier(key_file=path, clock=Clock(NOW))
        assert (await verifier.verify(signed(claims()))).user_id == "user_123"


async def test_a_secret_of_random_bytes_is_taken_whole(tmp_path: Path) -> None:
    secret = b"\xf0" * 31 + b"\n"
    path = tmp_path / "secret"
    path.write_bytes(secret)
    verifier = JwtVerifier(key_file=path, clock=Clock())
    assert (await verifier.verify(signed(claims(), secret))).user_id == "user_123"


def test_a_key_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    private = PRIVATE_KEYS["RS256"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = {
        "holds a private key": private,
        "holds no PEM public key": b"-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----",
        "at least 32": b"short\n",
    }
    for message, content in files.items():
        path = tmp_path / "key"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            JwtVerifier(key_file=path)
    with pytest.raises(ConfigError, match="cannot be read"):
        JwtVerifier(key_file=tmp_path / "absent.pem")


def test_weak_and_foreign_kinds_of_key_are_refused(tmp_path: Path) -> None:
    unfit = [
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        ec.generate_private_key(ec.SECP384R1()),
        ed448.Ed448PrivateKey.generate(),
        dsa.generate_private_key(2048),
    ]
    for key in unfit:
        path = tmp_path / "key.pem"
        path.write_bytes(pem(key))
        with pytest.raises(ConfigError, match="not used here"):
            JwtVerifier(key_file=path)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks",
        "http://10.0.0.1/jwks",
        "http://127.0.0.1.evil.example/jwks",
        "http://localhost.evil.example/jwks",
        "http://127.0.0.1@evil.example/jwks",
        "file:///etc/passwd",
        "https://",
        "issuer.example/jwks",
        "",
        "http://[::1",
    ],
)
def test_a_jwks_address_is_https_or_on_loopback(url: str) -> None:
    with pytest.raises(ConfigError, match="JWKS address"):
        JwtVerifier(jwks_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/jwks",
        "http://localhost/x",
        "http://127.3.2.1:1/",
        "http://[::1]:80/",
    ],
)
def test_good_jwks_addresses_are_taken(url: str) -> None:
    JwtVerifier(jwks_url=url, audience="catenary")


def test_published_keys_without_an_audience_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    JwtVerifier(jwks_url="https://issuer.example/jwks", audience="catenary")
    assert not caplog.records
    JwtVerifier(jwks_url="https://issuer.example/jwks")
    assert "audience" in caplog.text

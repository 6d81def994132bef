"""Verifying tokens: what is taken, what is refused, what is remembered."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import string
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catenary.auth import Identity, JwtVerifier, sign_token, tokens
from catenary.errors import AuthError, ConfigError

from .support import (
    NOW,
    OTHER_KEYS,
    PRIVATE_KEYS,
    SECRET,
    Clock,
    assert_shows_nothing_of,
    b64,
    claims,
    pem,
    raw_token,
    signed,
)

HEADER = b'{"alg":"HS256","typ":"JWT"}'
NONE_HEADER = b'{"alg":"none","typ":"JWT"}'
ALPHABET = string.ascii_letters + string.digits + "-_"
GOOD = signed(claims(sid="s_1", groups=["staff"]))


def verifier(**options: Any) -> JwtVerifier:
    given: dict[str, Any] = {"secret": SECRET, "clock": Clock()} | options
    return JwtVerifier(**given)


def verifier_of(algorithm: str, directory: Path) -> JwtVerifier:
    if algorithm == "HS256":
        return verifier()
    path = directory / f"{algorithm}.pem"
    path.write_bytes(pem(PRIVATE_KEYS[algorithm]))
    return JwtVerifier(key_file=path, clock=Clock())


async def refusal(token: str, **options: Any) -> AuthError:
    """The error with which a token is refused, twice the same and never remembered."""
    checking = verifier(**options)
    with pytest.raises(AuthError) as first:
        await checking.verify(token)
    assert checking.verify_cached(token) is None
    with pytest.raises(AuthError) as second:
        await checking.verify(token)
    assert second.value.reason == first.value.reason
    return first.value


async def test_the_claims_make_the_identity() -> None:
    body = claims(sid="s_1", groups=["staff", "beta"], plan="pro")
    assert await verifier().verify(signed(body)) == Identity(
        user_id="user_123",
        session_id="s_1",
        expires_at=NOW + 3600,
        groups=("staff", "beta"),
        claims=body,
    )


async def test_the_subject_is_taken_exactly() -> None:
    for sub in ("User_123", " user_123 ", "e\u0301", "\u00e9", "a:b.c>*"):
        assert (await verifier().verify(signed(claims(sub=sub)))).user_id == sub


BAD_CLAIMS: list[tuple[str, dict[str, Any]]] = [
    ("claims", {"exp": None}),
    ("claims", {"exp": "1800003600"}),
    ("claims", {"exp": True}),
    ("claims", {"exp": []}),
    ("claims", {"exp": 10**400}),
    ("claims", {"exp": 1e13}),
    ("expired", {"exp": -1}),
    ("expired", {"exp": int(NOW) - 30}),
    ("claims", {"nbf": int(NOW) + 31}),
    ("claims", {"nbf": "soon"}),
    ("claims", {"iat": int(NOW) + 31, "exp": int(NOW) + 60}),
    ("claims", {"iat": "now"}),
    ("lifetime", {"exp": int(NOW) + 24 * 3600 + 1}),
    ("lifetime", {"iat": int(NOW) - 24 * 3600}),
    ("lifetime", {"iat": None, "exp": int(NOW) + 24 * 3600 + 31}),
    ("claims", {"sub": None}),
    ("claims", {"sub": ""}),
    ("claims", {"sub": 123}),
    ("claims", {"sub": ["user_123"]}),
    ("claims", {"sub": "x" * 257}),
    ("claims", {"sub": "user_123\x00"}),
    ("claims", {"sid": 5}),
    ("claims", {"sid": ""}),
    ("claims", {"groups": "staff"}),
    ("claims", {"groups": ["staff", 1]}),
    ("claims", {"groups": {"staff": True}}),
]


@pytest.mark.parametrize(("reason", "changes"), BAD_CLAIMS, ids=str)
async def test_claims_that_do_not_do_are_refused(
    reason: str, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    token = raw_token(HEADER, json.dumps(claims(**changes)).encode())
    error = await refusal(token)
    assert (error.reason, error.status, error.close_code) == (reason, 401, 4501)
    assert_shows_nothing_of(token, error, caplog.text)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(NOW) - 29},
        {"exp": NOW + 0.5},
        {"nbf": int(NOW) + 30},
        {"iat": int(NOW) + 30},
        {"exp": int(NOW) + 24 * 3600},
        {"iat": None},
        {"iat": None, "exp": int(NOW) + 24 * 3600 + 30},
        {"aud": "somebody else", "iss": "whoever"},
    ],
    ids=str,
)
async def test_claims_at_their_limits_are_taken(changes: dict[str, Any]) -> None:
    assert (await verifier().verify(signed(claims(**changes)))).user_id == "user_123"


BAD_PAYLOADS = [
    b"",
    b"null",
    b"[]",
    b'"user_123"',
    b"{",
    b'{"sub":"user_123","exp":NaN}',
    b'{"sub":"user_123","exp":1e400}',
    b'{"sub":"\\ud800","exp":1800003600}',
    b'{"sub":"\xff","exp":1800003600}',
    b'{"a":' + b"[" * 3000,
]


@pytest.mark.parametrize("payload", BAD_PAYLOADS, ids=lambda payload: repr(payload[:30]))
async def test_a_signed_payload_that_is_no_json_object_is_refused(payload: bytes) -> None:
    token = raw_token(HEADER, payload)
    error = await refusal(token)
    assert error.reason == "malformed"
    assert_shows_nothing_of(token, error)


BAD_HEADERS = [
    ("malformed", b""),
    ("malformed", b"{}"),
    ("malformed", b"[]"),
    ("malformed", b'{"alg":7}'),
    ("malformed", b'{"alg":null}'),
    ("malformed", b'{"alg":"\xff"}'),
    ("malformed", b'{"alg":"HS256","kid":7}'),
    ("malformed", b'{"alg":"HS256","crit":["exp"],"exp":1}'),
    ("malformed", b'{"alg":"HS256","crit":[]}'),
    ("malformed", b'{"alg":"HS256","b64":false}'),
    ("malformed", b'{"alg":"HS256","z":' + b"[" * 4000),
    ("algorithm", b'{"alg":"none"}'),
    ("algorithm", b'{"alg":"None"}'),
    ("algorithm", b'{"alg":"hs256"}'),
    ("algorithm", b'{"alg":"HS512"}'),
    ("algorithm", b'{"alg":"RS256"}'),
    ("algorithm", b'{"alg":""}'),
]


@pytest.mark.parametrize(("reason", "header"), BAD_HEADERS, ids=lambda part: repr(part[:40]))
async def test_headers_that_do_not_do_are_refused(reason: str, header: bytes) -> None:
    token = raw_token(header, json.dumps(claims()).encode())
    error = await refusal(token)
    assert error.reason == reason
    assert_shows_nothing_of(token, error)


async def test_an_unsigned_token_is_refused() -> None:
    body = b64(json.dumps(claims()).encode())
    assert (await refusal(f"{b64(NONE_HEADER)}.{body}.")).reason == "algorithm"
    assert (await refusal(f"{b64(HEADER)}.{body}.")).reason == "signature"
    assert (await refusal(f"{b64(HEADER)}.{body}")).reason == "malformed"


async def test_a_token_signed_with_another_secret_is_refused() -> None:
    assert (
        await refusal(signed(claims(), "another-secret-of-thirty-two-bytes!!"))
    ).reason == "signature"


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
async def test_a_public_key_cannot_be_used_to_sign(tmp_path: Path, algorithm: str) -> None:
    public = verifier_of(algorithm, tmp_path)
    forged = raw_token(HEADER, json.dumps(claims()).encode(), pem(PRIVATE_KEYS[algorithm]).decode())
    with pytest.raises(AuthError) as refused:
        await public.verify(forged)
    assert refused.value.reason == "algorithm"
    stranger = signed(claims(), OTHER_KEYS[algorithm], algorithm)
    with pytest.raises(AuthError) as refused:
        await public.verify(stranger)
    assert refused.value.reason == "signature"
    assert_shows_nothing_of(stranger, refused.value)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        " " + GOOD,
        GOOD + " ",
        GOOD + "\n",
        GOOD + "=",
        GOOD.replace(".", "\u3002"),
        GOOD + "\ud800",
        "\udc80",
        "\u00e9" * 50,
        "Bearer " + GOOD,
        "a" * 100_000,
    ],
    ids=lambda token: repr(token[:12]),
)
async def test_what_is_no_token_is_refused(token: str) -> None:
    assert (await refusal(token)).reason == "malformed"


async def test_tokens_of_over_8_kib_are_refused_and_none_below() -> None:
    def padded(size: int) -> str:
        rest = len(raw_token(HEADER, json.dumps(claims(pad="")).encode()))
        return raw_token(HEADER, json.dumps(claims(pad="x" * ((size - rest) * 3 // 4))).encode())

    largest = padded(8 * 1024)
    assert 8 * 1024 - 4 <= len(largest) <= 8 * 1024
    assert (await verifier().verify(largest)).user_id == "user_123"
    assert (await refusal(padded(8 * 1024 + 8))).reason == "malformed"


@pytest.mark.parametrize(
    ("audience", "claimed", "is_taken"),
    [
        ("catenary", "catenary", True),
        ("catenary", ["other", "catenary"], True),
        (["a", "catenary"], "catenary", True),
        ("catenary", None, False),
        ("catenary", "Catenary", False),
        ("catenary", "catenary2", False),
        ("catenary", ["other"], False),
        ("catenary", [], False),
        ("catenary", [["catenary"]], False),
        ("catenary", {"catenary": 1}, False),
        ("catenary", 7, False),
    ],
)
async def test_the_audience_is_checked_when_set(
    audience: Any, claimed: Any, is_taken: bool
) -> None:
    token = (
        signed(claims())
        if claimed is None
        else raw_token(HEADER, json.dumps(claims(aud=claimed)).encode())
    )
    if is_taken:
        assert await verifier(audience=audience).verify(token)
    else:
        assert (await refusal(token, audience=audience)).reason == "audience"


@pytest.mark.parametrize(
    "claimed", [None, "https://evil.example", "https://issuer.example/", 7, ["x"]]
)
async def test_the_issuer_is_checked_when_set(claimed: Any) -> None:
    issuer = "https://issuer.example"
    assert await verifier(issuer=issuer).verify(signed(claims(iss=issuer)))
    assert await verifier(issuer=["https://b.example", issuer]).verify(signed(claims(iss=issuer)))
    token = raw_token(HEADER, json.dumps(claims(iss=claimed)).encode())
    assert (await refusal(token, issuer=issuer)).reason == "issuer"


async def test_leeway_and_lifetime_can_be_set() -> None:
    late = signed(claims(exp=int(NOW) - 1))
    assert (await refusal(late, leeway=0)).reason == "expired"
    assert (await refusal(GOOD, max_lifetime=3599)).reason == "lifetime"
    assert await verifier(max_lifetime=3600).verify(GOOD)


@pytest.mark.parametrize("algorithm", ["HS256", *PRIVATE_KEYS])
def test_a_change_of_any_one_character_is_refused(tmp_path: Path, algorithm: str) -> None:
    key = PRIVATE_KEYS.get(algorithm, SECRET)
    good = signed(claims(), key, algorithm)
    checking = verifier_of(algorithm, tmp_path)

    @settings(derandomize=True, max_examples=400, deadline=None, database=None)
    @given(
        st.integers(0, len(good) - 1),
        st.one_of(st.sampled_from(ALPHABET + "=.+/ "), st.characters()),
        st.sampled_from(["replace", "insert", "delete"]),
    )
    def mangled(place: int, character: str, how: str) -> None:
        tail = good[place:] if how == "insert" else good[place + 1 :]
        token = good[:place] + ("" if how == "delete" else character) + tail
        if token != good:
            with pytest.raises(AuthError) as refused:
                asyncio.run(checking.verify(token))
            assert refused.value.reason in {"malformed", "signature", "algorithm"}
            assert_shows_nothing_of(token, refused.value)

    mangled()
    asyncio.run(checking.verify(good))


@pytest.mark.parametrize("algorithm", ["HS256", *PRIVATE_KEYS])
async def test_every_other_last_character_is_refused(tmp_path: Path, algorithm: str) -> None:
    """The last characters of base64 may spell the same bytes in several ways; one is taken."""
    good = signed(claims(), PRIVATE_KEYS.get(algorithm, SECRET), algorithm)
    checking = verifier_of(algorithm, tmp_path)
    for last in ALPHABET.replace(good[-1], "") + "=":
        with pytest.raises(AuthError):
            await checking.verify(good[:-1] + last)
    for padding in ("=", "==", "==="):
        with pytest.raises(AuthError):
            await checking.verify(good + padding)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["sub", "exp", "iat", "nbf", "aud", "iss", "sid", "groups", "alg", "kid", "crit"]
)


@settings(derandomize=True, max_examples=500, deadline=None, database=None)
@given(st.dictionaries(NAMES, JSON), st.dictionaries(NAMES, JSON))
@example({}, {"exp": 10**300})
def test_any_json_that_is_signed_is_taken_or_refused(header: Any, body: Any) -> None:
    """Never is there another exception."""
    head = json.dumps({"alg": "HS256"} | header).encode()
    token = raw_token(head, json.dumps(claims() | body).encode())
    for checking in (verifier(), verifier(audience="a", issuer="i")):
        with contextlib.suppress(AuthError):
            assert isinstance(asyncio.run(checking.verify(token)), Identity)


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_that_are_signed_are_refused(header: bytes, payload: bytes) -> None:
    for first in (header, HEADER):
        with pytest.raises(AuthError):
            asyncio.run(verifier().verify(raw_token(first, payload)))


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    for token in (text, f"{text}.{text}.{text}"):
        assert verifier().verify_cached(token) is None
        with pytest.raises(AuthError):
            asyncio.run(verifier().verify(token))


async def test_a_verified_token_is_remembered_and_no_other() -> None:
    checking = verifier()
    assert checking.verify_cached(GOOD) is None
    identity = await checking.verify(GOOD)
    assert checking.verify_cached(GOOD) is identity
    assert await checking.verify(GOOD) is identity
    assert checking.verify_cached(GOOD[:-1]) is None
    assert checking.verify_cached(signed(claims(sub="user_456"))) is None
    assert verifier().verify_cached(GOOD) is None


async def test_a_remembered_token_is_forgotten_at_its_end() -> None:
    clock = Clock()
    checking = verifier(clock=clock)
    await checking.verify(GOOD)
    clock.now = NOW + 3599.9
    assert checking.verify_cached(GOOD) is not None
    clock.now = NOW + 3600
    assert checking.verify_cached(GOOD) is None
    clock.now = NOW + 3629
    assert (await checking.verify(GOOD)).user_id == "user_123"
    assert checking.verify_cached(GOOD) is None
    clock.now = NOW + 3630
    with pytest.raises(AuthError) as refused:
        await checking.verify(GOOD)
    assert refused.value.reason == "expired"


async def test_the_memory_of_tokens_is_bounded_and_keeps_the_last_used() -> None:
    checking = verifier()
    first, second = (signed(claims(sub=f"first_{n}")) for n in range(2))
    await checking.verify(first)
    await checking.verify(second)
    for n in range(tokens.CACHED_MAX - 1):
        await checking.verify(sign_token(f"user_{n}", secret=SECRET, clock=Clock()))
        if n == 100:
            assert checking.verify_cached(first) is not None
    assert checking.verify_cached(second) is None
    assert checking.verify_cached(first) is not None


async def test_no_token_is_kept_by_the_verifier() -> None:
    checking = verifier()
    await checking.verify(GOOD)
    assert_shows_nothing_of(GOOD, AuthError(repr(vars(checking)) + repr(checking)))


@pytest.mark.parametrize("algorithm", ["HS256", *PRIVATE_KEYS])
async def test_a_remembered_token_is_several_times_cheaper(tmp_path: Path, algorithm: str) -> None:
    checking = verifier_of(algorithm, tmp_path)
    key = PRIVATE_KEYS.get(algorithm, SECRET)
    many = [signed(claims(sub=f"user_{n}"), key, algorithm) for n in range(200)]

    begun = time.process_time()
    for token in many:
        await checking.verify(token)
    fresh = time.process_time() - begun
    begun = time.process_time()
    for token in many:
        assert checking.verify_cached(token) is not None
    cached = time.process_time() - begun
    assert cached * 4 < fresh


async def test_a_development_token_verifies() -> None:
    clock = Clock()
    token = sign_token(
        "user_123",
        secret=SECRET,
        ttl=60,
        session_id="s_1",
        groups=["staff"],
        issuer="here",
        audience="catenary",
        clock=clock,
    )
    identity = await verifier(clock=clock, issuer="here", audience="catenary").verify(token)
    assert (identity.user_id, identity.session_id, identity.groups) == (
        "user_123",
        "s_1",
        ("staff",),
    )
    assert identity.expires_at == NOW + 60
    plain = json.loads(
        base64.urlsafe_b64decode(sign_token("u", secret=SECRET).split(".")[1] + "==")
    )
    assert set(plain) == {"sub", "iat", "exp"}
    assert plain["exp"] - plain["iat"] == 3600


def test_a_development_token_is_checked_when_made() -> None:
    with pytest.raises(ConfigError, match="32"):
        sign_token("user_123", secret="short")
    with pytest.raises(AuthError):
        sign_token("", secret=SECRET)

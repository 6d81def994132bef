"""Keys from an address: which are used, and when the address is asked."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from catenary.auth import JwtVerifier, jwks
from catenary.errors import AuthError

from .support import (
    NOW,
    OTHER_KEYS,
    PRIVATE_KEYS,
    SECRET,
    Clock,
    JwksServer,
    assert_shows_nothing_of,
    b64,
    claims,
    jwk,
    jwks_server,
    pem,
    raw_token,
    signed,
)


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with jwks_server() as running:
        running.publish(jwk(PRIVATE_KEYS["ES256"], "ES256", kid="k1"))
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(server: JwksServer, clock: Clock) -> JwtVerifier:
    return JwtVerifier(jwks_url=server.url, audience="catenary", clock=clock)


def token(kid: str | None = "k1", key: Any = None, algorithm: str = "ES256", **changes: Any) -> str:
    header = {} if kid is None else {"kid": kid}
    body = claims(aud="catenary", **changes)
    return signed(body, key or PRIVATE_KEYS[algorithm], algorithm, **header)


async def reason(verifier: JwtVerifier, text: str) -> str:
    with pytest.raises(AuthError) as refused:
        await verifier.verify(text)
    assert_shows_nothing_of(text, refused.value)
    return refused.value.reason


async def test_all_kinds_of_published_keys_verify(
    server: JwksServer, verifier: JwtVerifier
) -> None:
    server.publish(
        *(jwk(key, name, kid=name, alg=name, use="sig") for name, key in PRIVATE_KEYS.items())
    )
    for name in PRIVATE_KEYS:
        identity = await verifier.verify(token(name, algorithm=name))
        assert identity.user_id == "user_123"
    assert server.requests == ["/jwks.json"]


async def test_the_keys_are_kept_for_ten_minutes(
    server: JwksServer, verifier: JwtVerifier, clock: Clock
) -> None:
    for n in range(3):
        await verifier.verify(token(sub=f"user_{n}"))
    clock.now = NOW + 599
    await verifier.verify(token(sub="user_4"))
    assert len(server.requests) == 1
    clock.now = NOW + 600
    await verifier.verify(token(sub="user_5"))
    assert len(server.requests) == 2


async def test_a_withdrawn_key_is_noticed_in_ten_minutes_also_for_remembered_tokens(
    server: JwksServer, verifier: JwtVerifier, clock: Clock
) -> None:
    text = token()
    await verifier.verify(text)
    server.publish()
    clock.now = NOW + 599
    assert verifier.verify_cached(text) is not None
    clock.now = NOW + 600
    assert verifier.verify_cached(text) is None
    assert await reason(verifier, text) == "signature"


async def test_an_unknown_kid_asks_again_at_most_once_in_ten_seconds(
    server: JwksServer, verifier: JwtVerifier, clock: Clock
) -> None:
    await verifier.verify(token())
    server.publish(jwk(OTHER_KEYS["ES256"], "ES256", kid="k2"))
    rotated = token("k2", OTHER_KEYS["ES256"])
    # Too soon to tell whether it is a new key, so the client may try again.
    clock.now = NOW + 9.9
    assert await reason(verifier, rotated) == "keys_unavailable"
    assert len(server.requests) == 1
    clock.now = NOW + 10
    assert (await verifier.verify(rotated)).user_id == "user_123"
    assert len(server.requests) == 2
    clock.now = NOW + 20
    assert await reason(verifier, token("nobody")) == "signature"
    for n in range(20):
        assert await reason(verifier, token(f"nobody_{n}")) == "keys_unavailable"
    assert len(server.requests) == 3


async def test_concurrent_verifications_share_one_fetch(
    server: JwksServer, verifier: JwtVerifier
) -> None:
    server.gate.clear()
    waiting = [asyncio.create_task(verifier.verify(token(sub=f"user_{n}"))) for n in range(50)]
    await asyncio.to_thread(server.arrived.wait, 5)
    waiting += [asyncio.create_task(verifier.verify(token(sub=f"user_{n}"))) for n in range(50)]
    await asyncio.sleep(0)
    server.gate.set()
    assert len({identity.user_id for identity in await asyncio.gather(*waiting)}) == 50
    assert len(server.requests) == 1


async def test_one_who_gives_up_waiting_does_not_stop_the_fetch_of_the_others(
    server: JwksServer, verifier: JwtVerifier
) -> None:
    server.gate.clear()
    impatient = asyncio.create_task(verifier.verify(token(sub="user_1")))
    patient = asyncio.create_task(verifier.verify(token(sub="user_2")))
    await asyncio.to_thread(server.arrived.wait, 5)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    server.gate.set()
    assert (await patient).user_id == "user_2"
    assert len(server.requests) == 1


def test_a_verifier_may_be_used_from_one_event_loop_after_another(
    server: JwksServer, verifier: JwtVerifier, clock: Clock
) -> None:
    async def abandoned() -> None:
        task = asyncio.create_task(verifier.verify(token()))
        await asyncio.to_thread(server.arrived.wait, 5)
        task.cancel()

    server.gate.clear()
    asyncio.run(abandoned())
    server.gate.set()
    clock.now = NOW + 10
    assert asyncio.run(verifier.verify(token())).user_id == "user_123"


async def test_a_verifier_may_be_used_from_two_event_loops_at_once(
    server: JwksServer, verifier: JwtVerifier, clock: Clock
) -> None:
    server.gate.clear()
    elsewhere = asyncio.create_task(
        asyncio.to_thread(lambda: asyncio.run(verifier.verify(token(sub="user_1"))))
    )
    await asyncio.to_thread(server.arrived.wait, 5)
    clock.now = NOW + 10
    here = asyncio.create_task(verifier.verify(token(sub="user_2")))
    await asyncio.sleep(0)
    server.gate.set()
    assert [(await task).user_id for task in (elsewhere, here)] == ["user_1", "user_2"]


async def test_a_published_private_key_is_not_used(
    server: JwksServer, verifier: JwtVerifier
) -> None:
    private = json.loads(get_default_algorithms()["ES256"].to_jwk(PRIVATE_KEYS["ES256"]))
    assert "d" in private
    server.publish({**private, "kid": "k1", "key_ops": ["sign", "verify"]})
    assert await reason(verifier, token()) == "signature"


async def test_keys_had_before_serve_while_the_address_is_down(
    server: JwksServer, verifier: JwtVerifier, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await verifier.verify(token(sub="user_0"))
    server.stop()
    for n in range(1, 4):
        clock.now = NOW + 600 * n
        text = token(sub=f"user_{n}")
        assert (await verifier.verify(text)).user_id == f"user_{n}"
        # What an old key verified is not remembered.
        assert verifier.verify_cached(text) is None
        assert await reason(verifier, token("k2")) == "keys_unavailable"
    assert "go on serving" in caplog.text
    assert "jwks.json" not in caplog.text
    server.start()
    server.publish(jwk(OTHER_KEYS["ES256"], "ES256", kid="k2"))
    clock.now += 10
    assert await verifier.verify(token("k2", OTHER_KEYS["ES256"]))
    assert await reason(verifier, token(sub="user_9")) == "keys_unavailable"


async def test_while_the_address_is_silent_only_the_first_who_notices_waits(
    server: JwksServer, verifier: JwtVerifier, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await verifier.verify(token(sub="user_0"))
    text = token(sub="user_3")
    server.status = 500
    clock.now = NOW + 600
    await verifier.verify(token(sub="user_1"))
    assert "status 500" in caplog.text
    server.gate.clear()
    server.arrived.clear()
    clock.now = NOW + 700
    async with asyncio.timeout(1):
        assert (await verifier.verify(token(sub="user_2"))).user_id == "user_2"
    await asyncio.to_thread(server.arrived.wait, 5)
    server.status = 200
    server.gate.set()
    async with asyncio.timeout(5):
        while verifier.verify_cached(text) is None:
            await verifier.verify(text)
            await asyncio.sleep(0.01)
    assert len(server.requests) == 3


async def test_without_any_keys_the_client_may_try_again(
    server: JwksServer, verifier: JwtVerifier, clock: Clock
) -> None:
    server.stop()
    with pytest.raises(AuthError) as refused:
        await verifier.verify(token())
    assert (refused.value.reason, refused.value.status) == ("keys_unavailable", 503)
    assert not refused.value.close_code.is_final
    server.start()
    assert await reason(verifier, token()) == "keys_unavailable"
    clock.now = NOW + 10
    assert (await verifier.verify(token())).user_id == "user_123"


async def test_a_clock_set_back_does_not_make_keys_last(
    server: JwksServer, verifier: JwtVerifier, clock: Clock
) -> None:
    await verifier.verify(token(sub="user_1", iat=None))
    clock.now = NOW - 600
    await verifier.verify(token(sub="user_2", iat=None))
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"alg": "RS256"},
        {"alg": "ES384"},
        {"alg": "HS256"},
        {"alg": ["ES256"]},
        {"alg": None},
        {"use": "enc"},
        {"use": None},
        {"key_ops": ["sign"]},
        {"key_ops": 5},
        {"key_ops": []},
        {"d": "AAAA"},
        {"kid": "k2"},
        {"kid": 7},
        {"crv": "P-384"},
        {"x": 5},
        {"x": "!!"},
        {"kty": "RSA"},
        {"kty": ["EC"]},
    ],
    ids=str,
)
async def test_a_key_published_for_something_else_is_not_used(
    server: JwksServer, verifier: JwtVerifier, fields: dict[str, Any]
) -> None:
    server.publish({**jwk(PRIVATE_KEYS["ES256"], "ES256", kid="k1"), **fields})
    assert await reason(verifier, token()) == "signature"


@pytest.mark.parametrize(
    "fields",
    [{}, {"alg": "ES256"}, {"use": "sig"}, {"key_ops": ["verify"]}, {"x5u": "http://127.0.0.1:9/"}],
    ids=str,
)
async def test_a_key_published_for_signatures_is_used(
    server: JwksServer, verifier: JwtVerifier, fields: dict[str, Any]
) -> None:
    server.publish(
        {"kty": "oct", "k": b64(SECRET.encode()), "kid": "k1"},
        {"kty": "nonsense", "kid": "k1"},
        jwk(PRIVATE_KEYS["RS256"], "RS256", kid="k1"),
        {**jwk(PRIVATE_KEYS["ES256"], "ES256", kid="k1"), **fields},
    )
    assert (await verifier.verify(token())).user_id == "user_123"


async def test_a_key_is_used_for_its_own_algorithm_only(server: JwksServer, clock: Clock) -> None:
    server.publish(
        jwk(PRIVATE_KEYS["RS256"], "RS256", kid="k1"),
        {"kty": "oct", "k": b64(SECRET.encode()), "kid": "k2", "alg": "HS256"},
    )
    verifier = JwtVerifier(jwks_url=server.url, audience="catenary", clock=clock)
    for secret in (SECRET, pem(PRIVATE_KEYS["RS256"]).decode()):
        for kid in ("k1", "k2"):
            header = json.dumps({"alg": "HS256", "kid": kid}).encode()
            forged = raw_token(header, json.dumps(claims(aud="catenary")).encode(), secret)
            assert await reason(verifier, forged) == "algorithm"
    only = JwtVerifier(jwks_url=server.url, audience="catenary", algorithms=["ES256"], clock=clock)
    assert await reason(only, token(algorithm="RS256")) == "algorithm"
    assert await reason(only, token(algorithm="ES256")) == "signature"


async def test_another_key_under_a_known_kid_is_refused(verifier: JwtVerifier) -> None:
    assert await reason(verifier, token("k1", OTHER_KEYS["ES256"])) == "signature"


async def test_a_token_without_kid_needs_the_choice_to_be_clear(
    server: JwksServer, verifier: JwtVerifier, clock: Clock
) -> None:
    assert (await verifier.verify(token(None))).user_id == "user_123"
    server.publish(
        jwk(PRIVATE_KEYS["ES256"], "ES256", kid="k1"), jwk(OTHER_KEYS["ES256"], "ES256", kid="k2")
    )
    clock.now = NOW + 600
    assert await reason(verifier, token(None)) == "signature"


async def test_addresses_that_a_token_names_are_never_asked(
    server: JwksServer, verifier: JwtVerifier
) -> None:
    with jwks_server() as attacker:
        attacker.publish(jwk(OTHER_KEYS["ES256"], "ES256", kid="k1"))
        forged = signed(
            claims(aud="catenary"),
            OTHER_KEYS["ES256"],
            "ES256",
            kid="k1",
            jku=attacker.url,
            x5u=attacker.url,
            jwk=jwk(OTHER_KEYS["ES256"], "ES256"),
        )
        assert await reason(verifier, forged) == "signature"
        assert attacker.requests == []


async def test_a_redirect_is_not_followed(server: JwksServer, verifier: JwtVerifier) -> None:
    with jwks_server() as elsewhere:
        elsewhere.publish(jwk(PRIVATE_KEYS["ES256"], "ES256", kid="k1"))
        server.status = 302
        server.answer_headers = {"Location": elsewhere.url}
        assert await reason(verifier, token()) == "keys_unavailable"
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":["k1"]}',
        b"[" * 10_000,
        b"\xff",
        b'{"keys":[],"pad":"' + b"x" * jwks.DOCUMENT_MAX_BYTES + b'"}',
    ],
    ids=lambda document: repr(document[:12]),
)
async def test_an_answer_that_is_no_key_set_is_like_none(
    server: JwksServer, verifier: JwtVerifier, clock: Clock, document: bytes
) -> None:
    server.document = document
    assert await reason(verifier, token()) == "keys_unavailable"
    server.publish(jwk(PRIVATE_KEYS["ES256"], "ES256", kid="k1"))
    clock.now = NOW + 10
    assert await verifier.verify(token())
    server.document = document
    clock.now = NOW + 700
    assert await verifier.verify(token(sub="user_1"))


@pytest.mark.parametrize("published", [[], [jwk(PRIVATE_KEYS["RS256"], "RS256", kid="k1")]])
async def test_an_address_without_any_fitting_key_is_warned_of(
    server: JwksServer, published: list[Any], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server.publish(*published)
    verifier = JwtVerifier(
        jwks_url=server.url, audience="catenary", algorithms=["ES256"], clock=clock
    )
    assert await reason(verifier, token()) == "signature"
    assert "every token will be refused" in caplog.text


async def test_the_environments_proxy_is_not_given_a_loopback_request(server: JwksServer) -> None:
    """It could answer with keys of its own."""
    program = (
        "import asyncio, sys\n"
        "from catenary.auth import JwtVerifier\n"
        "v = JwtVerifier(jwks_url=sys.argv[1], audience='catenary')\n"
        "print(asyncio.run(v._keys.find('ES256', 'k1')).kid)\n"
    )
    with jwks_server() as proxy:
        proxy.publish(jwk(OTHER_KEYS["ES256"], "ES256", kid="k1"))
        proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), proxy.url)
        environment = {**os.environ, **proxies, "NO_PROXY": "", "no_proxy": ""}
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            server.url,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        shown, _ = await child.communicate()
        assert shown.strip() == b"k1"
        assert proxy.requests == []
    assert server.requests == ["/jwks.json"]


FIELDS = st.sampled_from(["kty", "alg", "use", "kid", "crv", "x", "y", "n", "e", "key_ops", "k"])
VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.text(max_size=3)),
    st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "ES256", "sig", "AQAB"]),
    st.dictionaries(st.text(max_size=2), st.text(max_size=2)),
)


@settings(derandomize=True, max_examples=500, deadline=None, database=None)
@given(st.sampled_from(sorted(PRIVATE_KEYS)), st.dictionaries(FIELDS, VALUES, max_size=4))
def test_any_published_key_is_used_or_passed_over(name: str, changes: dict[str, Any]) -> None:
    """One broken key never spoils the others."""
    broken = {**jwk(PRIVATE_KEYS[name], name, kid="k1"), **changes}
    good = jwk(OTHER_KEYS["EdDSA"], "EdDSA", kid="good")
    document = json.dumps({"keys": [broken, good]}).encode()
    keys = list(jwks._usable_keys(document, frozenset(PRIVATE_KEYS)))
    assert keys[-1].kid == "good"

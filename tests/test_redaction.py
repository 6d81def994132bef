"""Secrets by their key's last word, at any depth, and nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary import redaction
from catenary.redaction import REDACTED, JsonRedactor, is_secret, redact

SECRET_KEYS = [
    "password", "Password", "db_password", "dbPassword", "PGPASSWORD", "passwords", "passwd",
    "passphrase", "pwd", "secret", "client_secret", "clientSecret", "secrets", "token", "tokens",
    "access_token", "accessToken2", "refresh-token", "ID_TOKEN", "authtoken", "token_v2",
    "api_key", "apiKey", "APIKey", "apikey", "X-Api-Key", "MYAPIKEY", "OPENAI_API_KEY", "api_keys",
    "private_key", "access_key", "secretKey", "secret_access_key", "encryption-key", "ssh key",
    "Authorization", "proxy-authorization", "auth_header", "credential", "credentials", "creds",
    "Cookie", "Set-Cookie", "cookies", "bearer", "jwt", "password1", "token_value",
    "spring.datasource.password", "x" * 100 + "_password",
]  # fmt: skip

PLAIN_KEYS = [
    "key", "keys", "Key", "primary_key", "sort-key", "cacheKey", "idempotency_key", "public_key",
    "monkey", "keyboard", "value", "header", "2", "", "_", "v2", "key_value", "é",
    "max_tokens_note", "token_count", "tokenizer", "token_type", "password_hash_rounds",
    "passwordless", "secretary", "access_key_id", "secret_name", "authored", "author",
    "session_id", "run_id", "authentication_method", "cookie_policy", "q", "text", "x" * 100,
]  # fmt: skip


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_key_names_a_secret(key: str) -> None:
    assert redact({key: "s3cr3t"}) == {key: REDACTED}


@pytest.mark.parametrize("key", PLAIN_KEYS)
def test_key_names_no_secret(key: str) -> None:
    assert redact(value := {key: "value"}) is value


def test_numbers_under_a_secret_key_are_left() -> None:
    value = {"max_tokens": 512, "usage": {"total_tokens": 9.5, "token": None, "secret": True}}
    assert redact(value) is value


def test_everything_below_a_secret_key_is_redacted() -> None:
    value = {"credentials": {"user": "a", "ports": [1, "b", ["c"]]}, "tokens": ["d", 5, {"x": "e"}]}
    assert redact(value) == {
        "credentials": {"user": REDACTED, "ports": [1, REDACTED, [REDACTED]]},
        "tokens": [REDACTED, 5, {"x": REDACTED}],
    }


def test_parts_without_a_secret_are_shared_and_the_input_is_left() -> None:
    value = {"input": {"q": ["bridges"]}, "headers": [{"Authorization": "Bearer x"}]}
    before = copy.deepcopy(value)
    redacted = redact(value)
    assert value == before
    assert redacted["input"] is value["input"]
    assert redacted["headers"] == [{"Authorization": REDACTED}]


def test_keys_that_are_no_strings_are_no_secrets() -> None:
    assert not is_secret(7)


def test_long_keys_are_not_kept() -> None:
    redaction._names_secret.cache_clear()
    assert is_secret("x" * 10_000 + "_token")
    assert redaction._names_secret.cache_info().currsize == 0


SECRET = "s3cr3t"
plain_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
plain_values = st.recursive(
    plain_leaves,
    lambda parts: st.lists(parts) | st.dictionaries(st.sampled_from(PLAIN_KEYS), parts),
    max_leaves=12,
)
secret_values = st.recursive(
    st.just(SECRET) | st.integers(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=5,
)
mixed_values = st.recursive(
    plain_leaves | st.dictionaries(st.sampled_from(SECRET_KEYS), secret_values, min_size=1),
    lambda parts: st.lists(parts) | st.dictionaries(st.sampled_from(PLAIN_KEYS), parts),
    max_leaves=12,
)


@given(mixed_values)
def test_no_secret_survives_at_any_depth(value: Any) -> None:
    assert SECRET not in json.dumps(redact(value))


@given(plain_values)
def test_what_holds_no_secret_is_returned_itself(value: Any) -> None:
    assert redact(value) is value


@given(mixed_values)
def test_redacting_again_changes_nothing(value: Any) -> None:
    stored = json.loads(json.dumps(redact(value)))
    assert redact(stored) is stored


@given(mixed_values)
def test_shape_and_everything_but_strings_stay(value: Any) -> None:
    assert without_strings(redact(value)) == without_strings(value)


def without_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_strings(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_strings(part) for part in value]
    return "" if isinstance(value, str) else value


# JSON that comes as text


@given(mixed_values, st.data(), st.booleans(), st.sampled_from([None, 1]))
def test_json_in_pieces_is_redacted_as_it_is_whole(
    value: Any, data: st.DataObject, is_ascii: bool, indent: int | None
) -> None:
    """However the text is cut and written, what comes back is what the whole would be."""
    text = json.dumps(value, ensure_ascii=is_ascii, indent=indent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    redactor = JsonRedactor()
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert json.loads("".join(map(redactor.feed, pieces))) == redact(value)


def test_no_piece_of_a_secret_comes_back() -> None:
    """Not even of one that has not ended."""
    redactor = JsonRedactor()
    said = [redactor.feed(piece) for piece in ('{"q": "a", "pass', 'word": "s3', 'cr\\"3t')]
    assert said == ['{"q": "a", "pass', f'word": "{REDACTED}', ""]
    assert redactor.feed('", "r": "b"}') == '", "r": "b"}'


@given(st.text(alphabet='{}[]",:\\ aé1'))
def test_text_that_is_no_json_comes_back_somehow(text: str) -> None:
    """Models make mistakes; nothing raises for them."""
    redactor = JsonRedactor()
    assert isinstance("".join(map(redactor.feed, text)), str)

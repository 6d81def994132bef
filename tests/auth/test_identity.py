"""Identities, and the rules about logs and threads."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from catenary.auth import (
    Identity,
    LogAccess,
    authorize_log,
    authorize_thread,
    granted_access,
    may_use_thread,
)
from catenary.errors import AuthError, UsageError

ME = Identity(user_id="user_123")


@pytest.mark.parametrize(
    "user_id",
    [
        "u",
        "User_123",
        " user ",
        "e\u0301",
        "\u00e9",
        "auth0|5f7c",
        "a:b*>.c/..",
        "\U0001f309",
        "x" * 256,
    ],
)
def test_a_user_id_is_kept_exactly(user_id: str) -> None:
    assert Identity(user_id=user_id).user_id == user_id


@pytest.mark.parametrize(
    "user_id",
    [
        "",
        "x" * 257,
        "a\x00b",
        "a\nb",
        "user_123\n",
        "\x7f",
        "\x85",
        "\ud800",
        "a\udfffb",
        7,
        None,
        b"u",
    ],
)
def test_what_is_no_user_id_is_refused(user_id: Any) -> None:
    with pytest.raises(AuthError, match="1 to 256 characters") as refused:
        Identity(user_id=user_id)
    assert refused.value.reason == "claims"


def test_a_session_id_keeps_the_same_rule() -> None:
    with pytest.raises(AuthError, match="session id"):
        Identity(user_id="user_123", session_id="")


def test_an_identity_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ME.user_id = "user_456"  # type: ignore[misc]


def test_by_default_one_has_ones_own_log_only() -> None:
    assert authorize_log(ME, "user_123") == "write"
    for other in ("user_124", "USER_123", "user_123 ", "conversation:42", ""):
        assert authorize_log(ME, other) is None


def test_by_default_any_thread_of_the_log_may_be_used() -> None:
    assert authorize_thread(ME, "t1") is True


async def test_rules_may_be_plain_or_async() -> None:
    async def later(identity: Identity, log_id: str) -> LogAccess | None:
        return "read" if log_id == "shared" else None

    async def never(identity: Identity, thread_id: str) -> bool:
        return False

    assert await granted_access(authorize_log, ME, "user_123") == "write"
    assert await granted_access(later, ME, "shared") == "read"
    assert await granted_access(later, ME, "user_123") is None
    assert await may_use_thread(authorize_thread, ME, "t1")
    assert not await may_use_thread(never, ME, "t1")


async def test_a_rule_that_answers_nonsense_grants_nothing() -> None:
    def answering(answer: Any) -> Any:
        return lambda _identity, _place: answer

    for answer in (True, "admin", 1):
        with pytest.raises(UsageError, match="authorize_log"):
            await granted_access(answering(answer), ME, "user_123")
    for truthy in (None, "no", 1):
        assert not await may_use_thread(answering(truthy), ME, "t1")


def test_importing_it_loads_no_web_server_and_no_cryptography() -> None:
    program = (
        "import sys, catenary.auth, catenary.tickets;"
        "print([m for m in ('starlette','uvicorn','httpx','jwt','cryptography') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"

"""Which pages may connect."""

from __future__ import annotations

import pytest

from catenary.auth import Origins, Standing
from catenary.errors import AuthError, CloseCode, ConfigError

from .support import connection

LISTED = Origins(["https://app.example", "http://localhost:3000", "https://[::1]:8443"])
UNLISTED = Origins()


def standing(origins: Origins, *headers: tuple[str, str]) -> Standing:
    return origins.check(connection(headers=headers))


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "https://APP.example",
        "https://app.example:443",
        "http://localhost:3000",
        "https://[::1]:8443",
    ],
)
def test_a_listed_origin_is_allowed(origin: str) -> None:
    assert standing(LISTED, ("origin", origin)) is Standing.ALLOWED


FOREIGN = [
    "https://evil.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example.evil.example",
    "https://evil.example/https://app.example",
    "https://sub.app.example",
    "https://app.example/",
    "http://localhost",
    "http://localhost:3000.evil.example",
    "null",
    "",
    "app.example",
    "https://app.example, https://evil.example",
    "https://bridge.example",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_any_other_origin_is_a_403_if_there_is_a_list(origin: str) -> None:
    with pytest.raises(AuthError) as refused:
        standing(LISTED, ("origin", origin))
    error = refused.value
    assert (error.status, error.close_code, error.reason) == (403, CloseCode.FORBIDDEN, "origin")


def test_two_origins_are_foreign_even_if_listed() -> None:
    twice = (("origin", "https://app.example"), ("origin", "https://app.example"))
    with pytest.raises(AuthError):
        standing(LISTED, *twice)
    assert standing(UNLISTED, *twice) is Standing.FOREIGN


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://bridge.example", "bridge.example"),
        ("https://bridge.example", "Bridge.Example"),
        ("https://bridge.example", "bridge.example:443"),
        ("http://bridge.example", "bridge.example:80"),
        ("http://bridge.example:8000", "bridge.example:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_without_a_list_the_servers_own_pages_are_allowed(origin: str, host: str) -> None:
    assert standing(UNLISTED, ("host", host), ("origin", origin)) is Standing.ALLOWED


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "bridge.example"),
        ("http://bridge.example:8000", "bridge.example:8001"),
        ("http://bridge.example:8000", "bridge.example"),
        ("http://bridge.example", "bridge.example:443"),
        ("https://bridge.example.evil.example", "bridge.example"),
        ("null", "bridge.example"),
        ("null", ""),
        ("", ""),
        ("https://", ""),
    ],
)
def test_without_a_list_other_pages_are_foreign_and_not_refused(origin: str, host: str) -> None:
    assert standing(UNLISTED, ("host", host), ("origin", origin)) is Standing.FOREIGN


def test_two_hosts_are_nobodys_own() -> None:
    headers = (("host", "a.example"), ("host", "b.example"), ("origin", "https://a.example"))
    assert standing(UNLISTED, *headers) is Standing.FOREIGN


@pytest.mark.parametrize("origins", [LISTED, UNLISTED])
def test_a_request_without_origin_is_not_from_a_page(origins: Origins) -> None:
    assert standing(origins) is Standing.ABSENT
    for site in ("cross-site", "same-site", "none"):
        assert standing(origins, ("sec-fetch-site", site)) is Standing.ABSENT


def test_a_pages_plain_get_of_its_own_server_is_known_by_its_fetch_metadata() -> None:
    same = ("sec-fetch-site", "same-origin")
    assert standing(UNLISTED, same) is Standing.ALLOWED
    assert standing(LISTED, same) is Standing.ABSENT
    assert standing(LISTED, ("host", "app.example"), same) is Standing.ALLOWED


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "https://*.example",
        "app.example",
        "https://app.example/",
        "https://app.example/x",
        "null",
        "",
        "https://",
        "https://user@app.example",
        "https://app.example:port",
        "https://a.example\n",
        "https://a.example?x",
        "https://a.example,https://b.example",
    ],
)
def test_a_list_holds_exact_origins_only(entry: str) -> None:
    with pytest.raises(ConfigError, match="scheme://host"):
        Origins([entry])


def test_one_origin_is_not_a_list() -> None:
    with pytest.raises(ConfigError, match="list"):
        Origins("https://app.example")

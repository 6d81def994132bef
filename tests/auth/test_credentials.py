"""Where a credential is looked for."""

from __future__ import annotations

import pytest

from catenary.auth import Credential, Source, find_credentials
from catenary.auth.credentials import find_ticket, has_cookies
from catenary.errors import AuthError

from .support import connection

JWT = "aaaa.bbbb.cccc"


def cookie(text: str) -> tuple[str, str]:
    return ("cookie", text)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.parametrize("type", ["websocket", "http"])
def test_a_bearer_header_is_found(scheme: str, type: str) -> None:
    found = find_credentials(connection(type=type, headers=(("authorization", f"{scheme} {JWT}"),)))
    assert found == Credential(Source.HEADER, JWT)


def test_a_subprotocol_is_found() -> None:
    found = find_credentials(connection(subprotocols=("catenary.v1", f"catenary.bearer.{JWT}")))
    assert found == Credential(Source.SUBPROTOCOL, JWT)


def test_a_ticket_is_found() -> None:
    found = find_credentials(connection(query="after=k3:1&ticket=abc&thread_id=t1"))
    assert found == Credential(Source.TICKET, "abc")


def test_a_cookie_is_found_only_if_configured() -> None:
    asked = connection(headers=(cookie(f"theme=dark; session={JWT}; x"),))
    assert find_credentials(asked) is None
    assert find_credentials(asked, cookie_name="theme") == Credential(Source.COOKIE, "dark")
    assert find_credentials(asked, cookie_name="session") == Credential(Source.COOKIE, JWT)
    assert find_credentials(asked, cookie_name="Session") is None
    quoted = connection(headers=(cookie(f'session="{JWT}"'),))
    assert find_credentials(quoted, cookie_name="session") == Credential(Source.COOKIE, JWT)


@pytest.mark.parametrize(
    "nothing",
    [
        connection(),
        connection(type="http"),
        connection(headers=(("authorization", "Basic dXNlcjpw"),)),
        connection(subprotocols=("catenary.v1", "bearer.x")),
        connection(query="after=start&tickets=1&Ticket=2"),
        connection(headers=(cookie("other=1"),)),
    ],
)
def test_none_is_found_where_none_is(nothing: object) -> None:
    assert find_credentials(nothing, cookie_name="session") is None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["token", "access_token", "jwt", "Token", "JWT", "%74oken"])
def test_a_token_in_the_query_is_refused_and_tickets_are_named(name: str) -> None:
    for query in (f"{name}={JWT}", f"ticket=abc&{name}={JWT}", f"{name}="):
        with pytest.raises(AuthError, match="ticket") as refused:
            find_credentials(connection(query=query))
        error = refused.value
        assert (error.status, error.close_code, error.reason) == (400, 4500, "token_in_url")
        assert JWT not in str(error)


@pytest.mark.parametrize(
    "asked",
    [
        connection(headers=(("authorization", f"Bearer {JWT}"), ("authorization", "Bearer other"))),
        connection(subprotocols=(f"catenary.bearer.{JWT}", "catenary.bearer.other")),
        connection(
            subprotocols=("catenary.bearer.other",), headers=(("authorization", f"Bearer {JWT}"),)
        ),
        connection(query="ticket=abc", headers=(("authorization", f"Bearer {JWT}"),)),
        connection(query="ticket=abc&ticket=abd"),
        connection(query="ticket=&ticket=abd"),
        connection(query="ticket=abc", headers=(cookie(f"session={JWT}"),)),
        connection(headers=(cookie(f"session={JWT}; session=other"),)),
        connection(headers=(cookie(f"session={JWT}"), cookie("session=other"))),
        connection(headers=(cookie("session=other"), ("authorization", f"Bearer {JWT}"))),
    ],
)
def test_two_different_credentials_are_refused(asked: object) -> None:
    with pytest.raises(AuthError, match="two different") as refused:
        find_credentials(asked, cookie_name="session")  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.close_code) == (400, 4500)
    assert JWT not in str(refused.value)


def test_the_same_credential_twice_is_one_and_the_header_counts() -> None:
    asked = connection(
        subprotocols=(f"catenary.bearer.{JWT}",),
        headers=(cookie(f"session={JWT}"), ("authorization", f"Bearer {JWT}")),
    )
    assert find_credentials(asked, cookie_name="session") == Credential(Source.HEADER, JWT)


def test_an_empty_credential_is_one_so_that_it_can_be_refused() -> None:
    found = find_credentials(connection(headers=(("authorization", "Bearer "),)))
    assert found == Credential(Source.HEADER, "")


def test_a_credential_does_not_show_itself() -> None:
    assert JWT not in f"{Credential(Source.HEADER, JWT)!r} {Credential(Source.HEADER, JWT)}"


def test_a_ticket_alone_may_be_looked_for() -> None:
    asked = connection(query="ticket=abc&token=x", headers=(("authorization", "Bearer x"),))
    assert find_ticket(asked) == Credential(Source.TICKET, "abc")
    assert find_ticket(connection(query="x=1")) is None
    with pytest.raises(AuthError, match="two different"):
        find_ticket(connection(query="ticket=a&ticket=b"))


def test_cookies_are_noticed() -> None:
    assert has_cookies(connection(headers=(cookie("a=b"),)))
    assert not has_cookies(connection())

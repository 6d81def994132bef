"""Whoever connects: origin first, then one credential or the application's own way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from catenary.auth import Authenticator, Identity, JwtVerifier
from catenary.errors import AuthError, CloseCode, ConfigError
from catenary.tickets import Tickets

from .support import NOW, SECRET, Clock, assert_shows_nothing_of, claims, connection, signed
from .test_tickets import MemoryStore

TOKEN = signed(claims())
BEARER = ("authorization", f"Bearer {TOKEN}")
COOKIE = ("cookie", f"session={TOKEN}")
OWN = ("origin", "https://bridge.example")
FOREIGN = ("origin", "https://evil.example")
LISTED = ["https://app.example"]
ME = Identity(user_id="user_123", expires_at=NOW + 3600)


def verifier() -> JwtVerifier:
    return JwtVerifier(secret=SECRET, clock=Clock())


def make_tickets() -> Tickets:
    return Tickets(MemoryStore(Clock()), clock=Clock())


def authenticator(**options: Any) -> Authenticator:
    given: dict[str, Any] = {"verifier": verifier(), "tickets": make_tickets()} | options
    return Authenticator(**given)


async def refusal(asking: Authenticator, asked: HTTPConnection) -> AuthError:
    with pytest.raises(AuthError) as refused:
        await asking.identify(asked)
    assert_shows_nothing_of(TOKEN, refused.value)
    return refused.value


@pytest.mark.parametrize(
    "asked",
    [
        connection(headers=(BEARER,)),
        connection("/sse", type="http", headers=(BEARER,)),
        connection("/api/messages", type="http", method="POST", headers=(BEARER, FOREIGN)),
        connection(subprotocols=("catenary.v1", f"catenary.bearer.{TOKEN}")),
        connection(headers=(BEARER, FOREIGN)),
    ],
)
async def test_a_token_says_who_it_is(asked: HTTPConnection) -> None:
    identity = await authenticator().identify(asked)
    assert identity is not None
    assert (identity.user_id, identity.expires_at) == ("user_123", NOW + 3600)


async def test_without_a_credential_nobody_is_named_yet() -> None:
    assert await authenticator().identify(connection()) is None
    assert await authenticator().identify(connection(headers=(COOKIE, OWN))) is None
    assert await authenticator().identify(connection("/sse", type="http")) is None


async def test_a_bad_token_is_refused() -> None:
    for token in (signed(claims(exp=1)), "nonsense", ""):
        error = await refusal(
            authenticator(), connection(headers=(("authorization", f"Bearer {token}"),))
        )
        assert (error.status, error.close_code) == (401, CloseCode.NOT_AUTHENTICATED)


async def test_a_token_in_the_query_and_two_credentials_are_bad_requests() -> None:
    for asked in (
        connection(query=f"token={TOKEN}"),
        connection(query="ticket=x", headers=(BEARER,)),
    ):
        error = await refusal(authenticator(), asked)
        assert (error.status, error.close_code) == (400, CloseCode.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "asked",
    [
        connection(headers=(FOREIGN,)),
        connection(headers=(FOREIGN, BEARER)),
        connection(headers=(FOREIGN,), query=f"token={TOKEN}"),
        connection(headers=(FOREIGN,), query="ticket=abc"),
        connection(headers=(OWN, BEARER)),
    ],
)
async def test_with_a_list_a_foreign_page_is_refused_whatever_it_brings(
    asked: HTTPConnection,
) -> None:
    asking = authenticator(allowed_origins=LISTED)
    error = await refusal(asking, asked)
    assert (error.status, error.close_code, error.reason) == (403, CloseCode.FORBIDDEN, "origin")


async def test_with_a_list_its_pages_and_programs_get_in() -> None:
    asking = authenticator(allowed_origins=LISTED, cookie_name="session")
    page = ("origin", "https://app.example")
    for headers in ((page, BEARER), (BEARER,), (page, COOKIE)):
        assert await asking.identify(connection(headers=headers)) is not None


async def test_a_cookie_counts_only_from_an_allowed_page() -> None:
    for asking, allowed in (
        (authenticator(cookie_name="session"), OWN),
        (authenticator(cookie_name="session", allowed_origins=LISTED), ("origin", LISTED[0])),
    ):
        assert await asking.identify(connection(headers=(COOKIE, allowed))) is not None
        for headers in ((COOKIE,), (COOKIE, FOREIGN), (COOKIE, ("origin", "null"))):
            error = await refusal(asking, connection(headers=headers))
            assert (error.status, error.reason) == (403, "origin")


async def test_an_event_source_of_the_servers_own_page_may_use_its_cookie() -> None:
    asking = authenticator(cookie_name="session")
    same = ("sec-fetch-site", "same-origin")
    asked = connection("/sse", type="http", headers=(COOKIE, same))
    assert await asking.identify(asked) is not None
    cross = connection("/sse", type="http", headers=(COOKIE, ("sec-fetch-site", "cross-site")))
    assert (await refusal(asking, cross)).reason == "origin"


def test_a_cookie_needs_something_to_verify_it() -> None:
    with pytest.raises(ConfigError, match="cookie"):
        authenticator(verifier=None, cookie_name="session")


async def test_a_ticket_says_who_it_is_on_its_own_wire_only() -> None:
    tickets = make_tickets()
    asking = authenticator(tickets=tickets)
    ws = await tickets.issue(ME, purpose="ws")
    sse = await tickets.issue(ME, purpose="sse")
    for path in ("/sse", "/prefix/sse", "/sse"):
        assert await asking.identify(connection(path, type="http", query=f"ticket={sse}")) == ME
    for path, method in (
        ("/api/messages", "POST"),
        ("/api/tickets", "POST"),
        ("/sse", "POST"),
        ("/api/users/user_123/events", "GET"),
    ):
        for ticket in (ws, sse):
            asked = connection(path, type="http", method=method, query=f"ticket={ticket}")
            assert (await refusal(asking, asked)).reason == "ticket"
    assert (await refusal(asking, connection(query=f"ticket={sse}"))).reason == "ticket"
    assert await asking.identify(connection(query=f"ticket={ws}")) == ME
    assert (await refusal(asking, connection(query=f"ticket={ws}"))).reason == "ticket"


async def test_what_is_not_configured_is_refused() -> None:
    asking = authenticator(verifier=None, tickets=None)
    assert (await refusal(asking, connection(headers=(BEARER,)))).status == 401
    assert (await refusal(asking, connection(query="ticket=abc"))).reason == "ticket"
    with pytest.raises(AuthError):
        await asking.verify_token(TOKEN, connection())
    assert await asking.identify(connection()) is None


async def test_a_token_in_a_message_is_verified() -> None:
    asking = authenticator()
    assert (await asking.verify_token(TOKEN, connection())).user_id == "user_123"
    with pytest.raises(AuthError) as refused:
        await asking.verify_token(TOKEN + "x", connection())
    assert_shows_nothing_of(TOKEN, refused.value)


# An application's own way.


def own(answer: Any, **options: Any) -> Authenticator:
    async def authenticate(_: HTTPConnection) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return authenticator(authenticate=authenticate, **options)


async def test_the_application_decides() -> None:
    assert await own(ME).identify(connection()) is ME
    assert await own("user_9").identify(connection(headers=(BEARER,))) == Identity(user_id="user_9")
    # Its own credentials are its own business, also in the query.
    assert await own(ME).identify(connection(query="token=theirs", headers=(BEARER,))) is ME


@pytest.mark.parametrize("answer", [None, "", "a\x00", 7, True, b"user_123", object()])
async def test_an_answer_that_names_nobody_refuses(answer: Any) -> None:
    error = await refusal(own(answer), connection(headers=(BEARER,)))
    assert (error.status, error.close_code) == (401, CloseCode.NOT_AUTHENTICATED)


async def test_an_exception_of_the_application_refuses_and_is_logged_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for failure in (ValueError(f"bad token {TOKEN}"), KeyError(TOKEN), TimeoutError(TOKEN)):
        caplog.clear()
        asked = connection(headers=(BEARER,))
        with pytest.raises(AuthError) as refused:
            await own(failure).identify(asked)
        error = refused.value
        assert (error.status, error.close_code) == (401, CloseCode.NOT_AUTHENTICATED)
        assert type(failure).__name__ in caplog.text
        assert "test_authenticator.py" in caplog.text
        assert "in authenticate" in caplog.text
        assert_shows_nothing_of(TOKEN, error, caplog.text)


async def test_a_wrong_kind_of_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    await refusal(own(7), connection())
    assert "answered a int" in caplog.text
    caplog.clear()
    await refusal(own(None), connection())
    assert not caplog.records


async def test_an_applications_own_refusal_stands() -> None:
    theirs = AuthError("banned", reason="banned", close_code=CloseCode.FORBIDDEN, status=403)
    assert await refusal(own(theirs), connection()) is theirs


@pytest.mark.parametrize(
    ("status", "expected", "close_code"),
    [(401, 401, 4501), (403, 403, 4503), (404, 401, 4501), (503, 503, 1013), (500, 503, 1013)],
)
async def test_an_http_exception_of_the_application_refuses_by_its_status(
    status: int, expected: int, close_code: int, caplog: pytest.LogCaptureFixture
) -> None:
    error = await refusal(own(HTTPException(status, detail=TOKEN)), connection(headers=(BEARER,)))
    assert (error.status, error.close_code) == (expected, close_code)
    assert not caplog.records


async def test_being_cancelled_is_no_refusal() -> None:
    begun = asyncio.Event()

    async def authenticate(_: HTTPConnection) -> str:
        begun.set()
        await asyncio.Event().wait()
        return "user_123"

    asking = authenticator(authenticate=authenticate)
    task = asyncio.create_task(asking.identify(connection()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(asyncio.CancelledError):
        await own(asyncio.CancelledError()).identify(connection())


async def test_the_origin_is_checked_before_the_application_is_asked() -> None:
    asked: list[HTTPConnection] = []

    async def authenticate(connection: HTTPConnection) -> str:
        asked.append(connection)
        return "user_123"

    listed = authenticator(authenticate=authenticate, allowed_origins=LISTED)
    unlisted = authenticator(authenticate=authenticate)
    assert (await refusal(listed, connection(headers=(FOREIGN,)))).reason == "origin"
    # A browser adds cookies to a foreign page's request; the application might believe them.
    assert (await refusal(unlisted, connection(headers=(FOREIGN, COOKIE)))).reason == "origin"
    assert asked == []
    for headers in ((FOREIGN, BEARER), (OWN, COOKIE), (COOKIE,)):
        assert await unlisted.identify(connection(headers=headers)) is not None
    assert len(asked) == 3


async def test_a_ticket_that_the_application_was_asked_about_when_issued_is_enough() -> None:
    tickets = make_tickets()
    ticket = await tickets.issue(ME, purpose="ws")
    asking = own(AssertionError("asked"), tickets=tickets)
    assert await asking.identify(connection(query=f"ticket={ticket}")) == ME
    assert (await refusal(asking, connection(query=f"ticket={ticket}"))).reason == "ticket"
    # Without tickets, a parameter of that name is the application's.
    assert await own("user_9", tickets=None).identify(connection(query="ticket=theirs"))


async def test_the_application_is_asked_about_a_token_in_a_message() -> None:
    seen: list[HTTPConnection] = []

    async def authenticate(connection: HTTPConnection) -> str | None:
        seen.append(connection)
        return "user_9" if connection.headers["authorization"] == f"Bearer {TOKEN}" else None

    asking = authenticator(authenticate=authenticate)
    old = connection(
        headers=(("authorization", "Bearer old"), ("x-tenant", "a")), query="after=now"
    )
    assert (await asking.verify_token(TOKEN, old)).user_id == "user_9"
    assert seen[0].headers["x-tenant"] == "a"
    assert seen[0].headers.getlist("authorization") == [f"Bearer {TOKEN}"]
    assert seen[0].query_params["after"] == "now"
    assert old.headers["authorization"] == "Bearer old"
    for token in ("other", "\u00e9", "\ud800", ""):
        with pytest.raises(AuthError):
            await asking.verify_token(token, old)

"""What the logs show, and what they never show."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from catenary.observe.logging import (
    HIDDEN,
    AccessLogFilter,
    ConsoleFormatter,
    JsonFormatter,
    log_config,
    without_credentials,
)
from tests.serving.bridges import PATHS, bearer, bridge_on, token


def record(message: str, *args: object, **ids: object) -> logging.LogRecord:
    made = logging.getLogger("catenary.test").makeRecord(
        "catenary.test", logging.WARNING, __file__, 1, message, args, None, extra=ids
    )
    made.created = 1_800_000_000.25
    return made


@contextmanager
def captured(formatter: logging.Formatter, *names: str) -> Iterator[io.StringIO]:
    """Everything that these loggers say, formatted; of uvicorn's, what it says at INFO."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(formatter)
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        # At DEBUG uvicorn's own WebSocket classes show every frame.
        logger.setLevel(logging.INFO if logger.name.startswith("uvicorn") else logging.DEBUG)
    try:
        yield text
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def test_json_has_the_ids_as_fields() -> None:
    """One object a line, with the time in UTC."""
    line = JsonFormatter().format(
        record("closed with %s", 1012, user_id="user_123", connection_id="c_1", run_id="r1")
    )
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "warning",
        "logger": "catenary.test",
        "message": "closed with 1012",
        "user_id": "user_123",
        "connection_id": "c_1",
        "run_id": "r1",
    }
    assert "\n" not in JsonFormatter().format(record("two\nlines"))


def test_the_console_has_them_behind_the_message() -> None:
    """For people."""
    line = ConsoleFormatter().format(record("closed", user_id="user_123", run_id="r1"))
    assert line.endswith("WARNING  catenary.test  closed  user_id=user_123  run_id=r1")


def test_one_of_several_processes_says_which() -> None:
    """As a worker does; the only one of a program says nothing."""
    made = record("closed", user_id="user_123")
    made.processName = "worker-2"
    assert ConsoleFormatter().format(made).endswith("user_id=user_123  process=worker-2")
    assert json.loads(JsonFormatter().format(made))["process"] == "worker-2"


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()])
def test_exceptions_are_shown_without_tokens(formatter: logging.Formatter) -> None:
    """The trace is there; what it quotes is blanked."""
    secret = token()
    try:
        raise RuntimeError(f"refused: Bearer {secret}")  # noqa: TRY301 - a trace is wanted
    except RuntimeError as error:
        made = record("it failed")
        made.exc_info = (type(error), error, error.__traceback__)
    text = formatter.format(made)
    assert "RuntimeError" in text
    assert HIDDEN in text
    assert secret not in text


@pytest.mark.parametrize(
    "text",
    [
        "{token}",
        "Authorization: Bearer {token}",
        "authorization: bearer {opaque}",
        "catenary.v1, catenary.bearer.{token}",
        "catenary.bearer.{opaque}",
        "GET /ws?ticket={opaque} HTTP/1.1",
        "GET /ws?after=k3:4&ticket={opaque}&log=x",
        "GET /ws?token={token}",
        "GET /ws?access_token={opaque}",
        "{{'token': '{token}'}}",
    ],
)
def test_credentials_are_blanked_wherever_they_stand(text: str) -> None:
    """What surrounds them stays."""
    opaque = "Zm9vYmFyYmF6cXV4"
    blanked = without_credentials(text.format(token=token(), opaque=opaque))
    assert HIDDEN in blanked
    assert opaque not in blanked
    for part in token().split("."):
        assert part not in blanked
    assert blanked.count(HIDDEN) == 1


def test_what_is_no_credential_stays() -> None:
    """Ids, positions, words."""
    text = "user_123 at k3:57: the bearer of good news asks for /ws?after=k3:4 and a ticket=counter"
    assert without_credentials(text) == text.replace("of good", f"{HIDDEN} good")


@pytest.mark.parametrize("path", PATHS)
async def test_no_log_shows_a_credential(path: str) -> None:
    """Tokens in headers, subprotocols and messages, tickets in URLs, good and bad, at any level."""
    secret, bad = token(), token("user_456")[:-3] + "abc"
    names = ("catenary", "websockets.server", "uvicorn.access", "uvicorn.error", "asyncio")
    with captured(logging.Formatter("%(message)s"), *names) as plain:
        logging.getLogger("uvicorn.access").addFilter(access := AccessLogFilter())
        logging.getLogger("uvicorn.error").addFilter(access)
        async with bridge_on(path) as bridge:
            async with bridge.http(headers=bearer(secret)) as http:
                answer = await http.post("/api/tickets", json={"purpose": "ws"})
                ticket = answer.json()["ticket"]
                await http.post("/api/messages", json={"type": "auth", "token": secret})
                await http.get(f"/sse?ticket={'t' * 43}")
                await http.get(f"/api/users/user_123/events?token={secret}")
            async with bridge.connected(f"?ticket={ticket}", user_id=None) as client:
                await client.ask({"type": "auth", "token": bad})
            offered = ("catenary.v1", f"catenary.bearer.{bad}")
            async with bridge.connected(user_id=None, subprotocols=offered) as client:
                await client.end()
            async with bridge.connected(user_id=None) as client:
                await client.send({"type": "auth", "token": bad})
                await client.end()
            await bridge.refusal(f"?token={secret}", user_id=None)
        logging.getLogger("uvicorn.access").removeFilter(access)
        logging.getLogger("uvicorn.error").removeFilter(access)
    text = plain.getvalue()
    assert "connected after" in text
    for credential in (secret, bad, ticket, "t" * 43):
        assert credential not in text
        assert credential.rpartition(".")[2] not in text


async def test_records_of_connections_carry_their_ids() -> None:
    """From the connect to the close."""
    with captured(JsonFormatter(), "catenary.serving") as text:
        async with bridge_on("fast") as bridge:
            async with bridge.connected() as client:
                connected = await client.receive()
            async with asyncio.timeout(5):
                while bridge.factory.manager.connection_count:
                    await asyncio.sleep(0.001)
    lines = [json.loads(line) for line in text.getvalue().splitlines()]
    mine = [line for line in lines if line.get("connection_id") == connected["connection_id"]]
    assert [line["message"].split()[0] for line in mine] == ["connected", "closed"]
    assert {line["user_id"] for line in mine} == {"user_123"}


@pytest.mark.parametrize("style", ["json", "console"])
def test_the_configuration_is_one_that_logging_takes(style: str) -> None:
    """For dictConfig and for uvicorn; the access log loses its queries."""
    names = ("", "catenary", "uvicorn", "uvicorn.error", "uvicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    kept = [(log, log.handlers[:], log.filters[:], log.level, log.propagate) for log in loggers]
    try:
        logging.config.dictConfig(log_config(style))  # type: ignore[arg-type]
        access = logging.getLogger("uvicorn.access")
        made = access.makeRecord(
            "uvicorn.access", logging.INFO, "", 1, '%s - "%s %s HTTP/%s" %d',
            ("127.0.0.1:1", "GET", "/ws?ticket=abc", "1.1", 200), None,
        )  # fmt: skip
        assert access.filter(made)
        (handler,) = access.handlers
        shown = handler.format(made)
        assert "GET /ws HTTP/1.1" in shown
        assert "abc" not in shown
    finally:
        for log, handlers, filters, level, propagate in kept:
            log.handlers[:], log.filters[:] = handlers, filters
            log.setLevel(level)
            log.propagate = propagate

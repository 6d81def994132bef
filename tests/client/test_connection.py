"""Addresses, keys and refusals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from catenary.client.connection import Dialing, retry_after_seconds

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def dialing(url: str, log: str | None = None, *thread_ids: str) -> Dialing:
    return Dialing(url, log, thread_ids, {}, None, 1 << 20, 1.0)


def test_address_keeps_what_the_url_has() -> None:
    """The query of an attempt is added to that of the URL, encoded."""
    address = dialing("wss://host/ws?a=1", "conversation:42", "t 1", "t&2").address("k3:41")
    assert address == (
        "wss://host/ws?a=1&after=k3:41&log=conversation:42&thread_id=t+1&thread_id=t%262"
    )
    assert dialing("ws://host/ws").address(None) == "ws://host/ws"


def test_keys_tell_readings_apart_and_hold_no_secret() -> None:
    """Another log or filter is another key; user, password and query are in none."""
    assert dialing("wss://me:secret@host:1/ws?ticket=secret").key == "wss://host:1/ws"
    keys = {
        dialing("ws://host/ws").key,
        dialing("ws://host/ws", "a").key,
        dialing("ws://host/ws", None, "a").key,
        dialing("ws://host/ws", None, "a", "b").key,
    }
    assert len(keys) == 4
    assert dialing("ws://h/ws", None, "b", "a").key == dialing("ws://h/ws", None, "a", "b").key


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("soon", None),
        ("-3", None),
        ("Sat, 21 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Retry-After is a number of seconds or a date; the past means now, nonsense nothing."""
    assert retry_after_seconds(value, NOW) == seconds

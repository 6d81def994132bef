"""The server that a proxy leads to, and its URLs."""

from __future__ import annotations

import pytest

from catenary.errors import UsageError
from catenary.validate.chaos.target import Target


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        (8000, "127.0.0.1", 8000),
        ("localhost:8000", "localhost", 8000),
        ("ws://127.0.0.1:8000/ws?after=start", "127.0.0.1", 8000),
        ("wss://live.example/ws", "live.example", 443),
        ("http://live.example", "live.example", 80),
        ("https://user@[::1]:8443/", "::1", 8443),
        ("redis://127.0.0.1:6379/0", "127.0.0.1", 6379),
    ],
)
def test_a_target_is_a_port_an_address_or_a_url(given: str | int, host: str, port: int) -> None:
    assert Target.parse(given) == (host, port)


@pytest.mark.parametrize("given", ["", "localhost", "ws://", "redis://h", "h:port", "ws://h:99999"])
def test_what_is_no_target_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="no target; give a port"):
        Target.parse(given)


@pytest.mark.parametrize(
    ("url", "through"),
    [
        ("ws://127.0.0.1:8000/ws?after=k3:7", "ws://127.0.0.1:5/ws?after=k3:7"),
        ("wss://localhost:8000/ws", "wss://localhost:5/ws"),
        ("http://user:word@server:8000/#part", "http://user:word@127.0.0.1:5/#part"),
        ("http://[::1]:8000/", "http://127.0.0.1:5/"),
    ],
)
def test_a_url_goes_through_the_proxy(url: str, through: str) -> None:
    assert Target.parse(8000).url_through(5, url) == through


def test_a_url_of_another_port_is_refused() -> None:
    with pytest.raises(UsageError, match=r"leads to 127\.0\.0\.1:8000, and 'ws://h:9/' to another"):
        Target.parse(8000).url_through(5, "ws://h:9/")


def test_an_address_is_of_this_machine_and_reaches_the_server() -> None:
    with pytest.raises(UsageError, match="not on loopback"):
        Target.parse("live.example:80").usable_address("127.0.0.2")
    with pytest.raises(UsageError, match=r"no address 192\.0\.2\.1 .*alias"):
        Target.parse(8000).usable_address("192.0.2.1")

"""The commands on a log that several processes share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.nats_server import nats_url_of_its_own
from tests.redis_server import RedisServer, shared_server, url_of_its_own


def test_doctor_says_which_durability_is_in_force(catenary: CommandLine) -> None:
    """Redis's own settings decide; less than was asked for is wrong, and what to do is said."""
    log = url_of_its_own()
    said = catenary("doctor", "--dev", "--log", log, "--port", "0")
    assert said.status == 0, said.out
    assert "durability in force: memory (the end of every bridge, not the end of Redis" in said.out
    said = catenary("doctor", "--dev", "--log", log, "--port", "0", "--durability", "power")
    assert said.status == 1
    assert "asked for durability power, and gives less" in said.out
    assert "appendfsync always" in said.out


def test_doctor_says_what_holds_in_nats(catenary: CommandLine) -> None:
    """JetStream's own settings decide; less than was asked for is wrong, and what to do is said."""
    log = nats_url_of_its_own()
    said = catenary("doctor", "--dev", "--log", log, "--port", "0")
    assert said.status == 0, said.out
    assert "durability in force: process (the end of JetStream; there is one copy" in said.out
    said = catenary("doctor", "--dev", "--log", log, "--port", "0", "--durability", "power")
    assert said.status == 1
    assert "asked for durability power, and gives less" in said.out
    assert "sync_interval: always" in said.out


@pytest.mark.parametrize("own", [url_of_its_own, nats_url_of_its_own])
def test_the_log_is_opened_where_no_server_runs(
    catenary: CommandLine, own: Callable[[], str]
) -> None:
    """emit, tail, inspect and new-term work without one, beside whoever has the log open."""
    log = own()
    local = ("--log", log, "--port", "1")
    place = catenary("emit", "user_123", "app.paid", '{"amount": 5}', *local).out.strip()
    assert place.endswith(":1")
    tail = catenary("tail", "user_123", "--no-follow", *local).out
    assert "app.paid" in tail
    assert "Runs (0)" in catenary("inspect", *local).out
    assert catenary("log", "new-term", log).out == "1 log has a new term.\n"
    after = catenary("emit", "user_123", "app.paid", *local).out.strip()
    assert after.endswith(":2")
    assert after.partition(":")[0] != place.partition(":")[0]


def test_logs_are_moved_to_several_servers(catenary: CommandLine, tmp_path: Path) -> None:
    """Events of users on either are there afterwards, and the old URL is refused."""
    source = url_of_its_own()
    users = ("user_0", "user_123")
    for user in users:
        catenary("emit", user, "app.paid", "--log", source, "--port", "1")
    with RedisServer(tmp_path) as other:
        host = f"127.0.0.1:{other.port}"
        target = source.replace("/0?", f",{host}/0?") + "&shards=1"
        assert "keys are on other servers now" in catenary("log", "move", source, target).out
        for user in users:
            tail = catenary("tail", user, "--no-follow", "--log", target, "--port", "1")
            assert "app.paid" in tail.out
        with other.client() as client:
            assert client.dbsize() > 1
        said = catenary("emit", "user_0", "app.paid", "--log", source, "--port", "1")
        assert "is shard 1 of 2" in said.err


@pytest.mark.parametrize("other", ["sqlite:///events.db", "memory://"])
def test_only_logs_in_redis_are_moved(catenary: CommandLine, other: str) -> None:
    """Others are files, which are copied, or nothing that lasts."""
    said = catenary("log", "move", other, "redis://127.0.0.1:1/0")
    assert said.status == 2
    assert "only logs in Redis can be moved" in said.err


@pytest.mark.parametrize("url", ["redis://:hidden@127.0.0.1:1/0", "nats://u:hidden@127.0.0.1:1"])
def test_a_store_that_is_not_there_is_said(catenary: CommandLine, url: str) -> None:
    """Without its password."""
    said = catenary("doctor", "--dev", "--log", url, "--port", "0")
    assert said.status == 1
    assert "127.0.0.1:1" in said.out
    assert "hidden" not in said.out + said.err


@pytest.mark.parametrize(
    "query", ["?durability=power", "?sentinel=m&sentinel_password=hidden", "?cluster=1", "?evict=1"]
)
def test_no_password_is_ever_shown(
    catenary: CommandLine, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong, what is said and logged has no password in it."""
    server = shared_server().url.replace("//", "//user:hidden@")
    for command in ("doctor", "config"):
        said = catenary(command, "--dev", "--log", server + query, "--port", "0")
        assert "127.0.0.1" in said.out
        assert "hidden" not in said.out + said.err + caplog.text
    said = catenary("doctor", "--dev", "--log", "postgres://user:hidden@host", "--port", "0")
    assert "hidden" not in said.out + said.err


@pytest.mark.parametrize("url", ["redis://", "redis://host?durability=best"])
def test_a_url_that_is_wrong_is_said(catenary: CommandLine, url: str) -> None:
    """With what it should look like."""
    said = catenary("doctor", "--dev", "--log", url, "--port", "0")
    assert said.status == 1
    assert "event log" in said.out

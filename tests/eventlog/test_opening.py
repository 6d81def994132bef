"""From a URL to its log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from catenary.errors import ConfigError
from catenary.eventlog.model import Durability
from catenary.eventlog.opening import open_log
from catenary.eventlog.sqlite.log import SqliteLog
from tests.eventlog.support import append, event


def test_one_log_for_one_url() -> None:
    """The same URL is the same log; a private one is nobody else's."""
    assert open_log("memory://") is open_log("memory://")
    assert open_log("memory://?private") is not open_log("memory://?private")


def test_one_log_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its path is written, a file is one log."""
    monkeypatch.chdir(tmp_path)
    log = open_log("sqlite:///events.db")
    assert log is open_log(f"sqlite:///{tmp_path}/events.db")
    assert log is open_log(f"sqlite:///{tmp_path}/x/../events.db?durability=power")
    assert isinstance(log, SqliteLog)
    assert log.path == tmp_path / "events.db"
    with pytest.raises(ConfigError, match="other options"):
        open_log("sqlite:///events.db?durability=process")


@pytest.mark.parametrize("mode", ["power", "process"])
def test_the_url_chooses_the_durability(tmp_path: Path, mode: str) -> None:
    """``durability=`` is what the log has."""
    log = open_log(f"sqlite:///{tmp_path}/events.db?durability={mode}")
    assert log.durability is Durability(mode)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://:memory:", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://events.db", "four slashes"),
        ("sqlite:///", "four slashes"),
        ("sqlite:///e.db?durability=best", "power or process"),
        ("sqlite:///e.db?wal=off", "wal"),
        ("memory://host", "memory://"),
        ("redis://", "names its servers"),
        ("redis://host/x", "the database"),
        ("redis://host?durability=best", "any, process or power"),
        ("redis://host?wait=-1", "wait is a small number"),
        ("redis://host?aof=1", "unknown aof"),
        ("redis://a,b/1?cluster=1", "one database"),
        ("redis://a?cluster=1&sentinel=m", "excludes"),
        ("redis://a,b?cluster=1&shards=1", "exclude each other"),
        ("redis://a,b/0", "several servers need"),
        ("redis://a,a/0?shards=1", "named twice"),
        ("redis://a?key_prefix={x}", "plain word"),
        ("nats://", "names its servers"),
        ("nats://host/x", "has no path"),
        ("nats://host:x", "names its servers"),
        ("nats://host?durability=best", "any, process or power"),
        ("nats://host?replicas=7", "1 to 5"),
        ("nats://host?storage=tape", "file or memory"),
        ("nats://host?key_prefix=a.b", "plain word"),
        ("nats://host?sync=1", "unknown sync"),
        ("postgres://localhost", "memory://, sqlite://"),
        ("events.db", "memory://, sqlite://"),
    ],
)
def test_other_urls_say_what_is_supported(url: str, says: str) -> None:
    """A URL that names no log is refused with what to write."""
    with pytest.raises(ConfigError) as refused:
        open_log(url)
    assert says in str(refused.value)


async def test_the_last_stop_closes_a_shared_log(tmp_path: Path) -> None:
    """Each start is undone by one stop; events between are committed."""
    url = f"sqlite:///{tmp_path}/events.db"
    first, second = open_log(url), open_log(url)
    await asyncio.gather(first.start(), second.start())
    await first.stop()
    assert (await append(second, event(1)))[0].seq == 1
    await second.stop()
    assert (tmp_path / "events.db-wal").exists() is False

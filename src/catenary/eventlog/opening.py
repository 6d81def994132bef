"""From a URL to its event log; one log for each URL in a process."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from catenary.errors import ConfigError
from catenary.eventlog.base import EventLog
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import Durability
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.eventlog.urls import without_secrets

_SUPPORTED = (
    "memory://, sqlite:///file.db (sqlite:////absolute/file.db), redis://host:6379/0 (rediss:// "
    "for TLS) and nats://host:4222 (tls:// for TLS)"
)

_lock = threading.Lock()
_logs: weakref.WeakValueDictionary[str, EventLog] = weakref.WeakValueDictionary()
_options: dict[str, dict[str, Any]] = {}


def open_log(url: str, **options: Any) -> EventLog:
    """
    Return the event log of a URL; the same one for the same URL while anyone has it.

    Nothing is opened yet: ``start`` does that, or the first event. Each start
    of a shared log is undone by one stop; the last one closes it. Options are
    the keyword arguments of the log's class.

    ========================================  =====================================
    URL                                       log
    ========================================  =====================================
    ``memory://``                             in this process, shared in it
    ``memory://?private``                     one of its own
    ``sqlite:///events.db``                   a file, relative to the directory
    ``sqlite:////var/lib/events.db``          a file
    ``…?durability=power`` or ``=process``    what an acknowledged event survives
    ``redis://host:6379/0``, ``rediss://…``   Redis or Valkey, shared by many processes
    ``nats://host:4222``, ``tls://…``         NATS JetStream, shared by many processes
    ========================================  =====================================

    Raises:
        ConfigError: If it is none of these, or was opened with other options.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return _memory(url, parts, options)
    if parts.scheme == "sqlite":
        return _sqlite(url, parts, options)
    if parts.scheme in ("redis", "rediss"):
        return _redis(url, options)
    if parts.scheme in ("nats", "tls"):
        return _nats(url, options)
    raise ConfigError(
        f"{without_secrets(url)!r} names no event log; this version supports {_SUPPORTED}"
    )


def _memory(url: str, parts: SplitResult, options: dict[str, Any]) -> EventLog:
    if parts.netloc or parts.path.strip("/") or parts.query not in ("", "private"):
        raise ConfigError(f"{url!r}: the log in memory is memory:// or memory://?private")
    if parts.query == "private":
        return MemoryLog(url=url, **options)
    with _lock:
        return _shared("memory://", options) or _share(
            "memory://", MemoryLog(url="memory://", **options), options
        )


def _sqlite(url: str, parts: SplitResult, options: dict[str, Any]) -> EventLog:
    path = _path(url, parts)
    options = {**options, "durability": _durability(url, parts)}
    with _lock:
        key = f"sqlite:///{path}"
        return _shared(key, options) or _share(key, SqliteLog(path, url=url, **options), options)


def move_logs(source: str, target: str) -> int:
    """
    Move all logs from the servers of one URL to those of another; return how many keys moved.

    Raises:
        ConfigError: If one of them is no Redis log, or a process has it open.
        LogUnavailable: If a server does not answer; call it again with the same URLs.
    """
    if any(urlsplit(url).scheme not in ("redis", "rediss") for url in (source, target)):
        raise ConfigError("only logs in Redis can be moved: name two redis:// URLs")
    with _needing_redis():
        from catenary.eventlog.redis.address import parse  # noqa: PLC0415 - an extra brings it
        from catenary.eventlog.redis.moving import move  # noqa: PLC0415
    return move(parse(source), parse(target))


def _redis(url: str, options: dict[str, Any]) -> EventLog:
    with _needing_redis():
        from catenary.eventlog.redis.log import RedisLog  # noqa: PLC0415 - an extra brings it
    with _lock:
        return _shared(url, options) or _share(url, RedisLog(url, **options), options)


@contextmanager
def _needing_redis() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"a Redis log needs the package {missing.name}: pip install 'catenary[redis]'"
        ) from missing


def _nats(url: str, options: dict[str, Any]) -> EventLog:
    from catenary.eventlog.nats.log import NatsLog  # noqa: PLC0415 - loaded where it is used

    with _lock:
        return _shared(url, options) or _share(url, NatsLog(url, **options), options)


def _path(url: str, parts: SplitResult) -> Path:
    name = unquote(parts.path).removeprefix("/")
    if ":memory:" in (name, parts.netloc):
        raise ConfigError(f"{url!r}: for a log in memory use memory://")
    if parts.netloc or not name:
        raise ConfigError(
            f"{url!r} names no file: write sqlite:///events.db for one in this directory, "
            "sqlite:////var/lib/events.db (four slashes) for any other"
        )
    return Path(name).resolve()


def _durability(url: str, parts: SplitResult) -> Durability:
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    asked = given.pop("durability", "any")
    if given:
        raise ConfigError(f"{url!r}: unknown {', '.join(given)}; a log in a file has durability=")
    if asked not in ("any", Durability.POWER, Durability.PROCESS):
        raise ConfigError(f"{url!r}: durability is power or process, not {asked!r}")
    return Durability.POWER if asked == "any" else Durability(asked)


def _shared(key: str, options: dict[str, Any]) -> EventLog | None:
    log = _logs.get(key)
    if log is not None and _options[key] != options:
        raise ConfigError(
            f"{without_secrets(key)} is open in this process with other options: {_options[key]}"
        )
    return log


def _share(key: str, log: EventLog, options: dict[str, Any]) -> EventLog:
    _logs[key] = log
    _options[key] = options
    return log

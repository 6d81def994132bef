"""One connection to one Redis process, and the scripts that it knows."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import hiredis
from redis import Connection, SSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError
from redis.retry import Retry

from catenary.errors import ConfigError, LogUnavailable
from catenary.eventlog.redis.address import Address
from catenary.eventlog.redis.errors import errors_of
from catenary.eventlog.redis.scripts import Rules, Script, scripts_for

CONNECT_TIMEOUT = 3.0
TIMEOUT = 5.0
"""After so many seconds without an answer a connection is given up."""

OLDEST = (6, 2)

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


class Call(NamedTuple):
    """A script's call; all its keys are of one bucket."""

    bucket: int
    script: str
    keys: Sequence[bytes]
    args: Sequence[bytes | str | int]


class Link:
    """
    A connection that is open, to a primary. Not thread-safe.

    After an error it is of no use any more: whether what was sent was done is
    not known.

    Raises:
        LogUnavailable: If the server cannot be reached, or is a replica.
        ConfigError: If it refuses the login, or is too old.
    """

    def __init__(self, address: Address, server: tuple[str, int], rules: Rules) -> None:
        self.server = server
        host, port = server
        self.where = f"redis at {host}:{port}"
        self._connection = connection_to(address, host, port)
        try:
            with errors_of(self.where):
                self._connection.connect()
            self.about = self._introduce()
            """What the server told of itself when the connection was opened."""
            self.version = _version(self.about)
            self.process = self.about.get("run_id", "")
            """The id of the Redis process, another after each start."""
            self._check()
        except BaseException:
            self.close()
            raise
        self.is_sharded = self.version >= (7, 0)
        """Whether it knows sharded publishing."""
        self._scripts = scripts_for(rules, self.process, is_sharded=self.is_sharded)

    def _introduce(self) -> dict[str, str]:
        """Say who this is and ask who the server is, in one round trip."""
        named, told = self.commands([("CLIENT", "SETNAME", "catenary"), ("INFO",)])
        self.checked(named)
        lines = (line.partition(":") for line in self.checked(told).decode().splitlines())
        return {name: value for name, colon, value in lines if colon}

    def _check(self) -> None:
        if self.version < OLDEST or not self.process.isalnum():
            version = self.about.get("redis_version")
            raise ConfigError(f"{self.where} is version {version}; 6.2 or later is needed")
        if self.about.get("role") != "master":
            raise LogUnavailable(f"{self.where} is a replica. Name the primary")

    def command(self, *words: bytes | str | float) -> Any:
        """Send one command and return its answer."""
        with errors_of(self.where):
            self._connection.send_packed_command([_pack(words)], check_health=False)
            return self._connection.read_response(disable_decoding=True)

    def commands(self, commands: Sequence[Sequence[bytes | str | int | float]]) -> list[Any]:
        """Send commands at once and return their answers, errors among them."""
        with errors_of(self.where):
            self._send(b"".join(map(_pack, map(tuple, commands))))
            return [self._answer() for _ in commands]

    def send_calls(self, calls: Sequence[Call]) -> None:
        """Send calls of scripts, all at once; ask for :meth:`answers_to` them next."""
        packed = b"".join(_packed(call, self._scripts[call.script]) for call in calls)
        with errors_of(self.where):
            self._send(packed)

    def answers_to(self, calls: Sequence[Call]) -> list[Any]:
        """
        Return the answers to what was sent; a script that is not known yet is loaded.

        Raises:
            LogUnavailable: If one of them did not answer; the others may have been done.
        """
        with errors_of(self.where):
            answers = [self._answer() for _ in calls]
            loaded: set[str] = set()
            for at, (call, answer) in enumerate(zip(calls, answers, strict=True)):
                if isinstance(answer, NoScriptError):
                    if call.script not in loaded:
                        self._load(self._scripts[call.script])
                        loaded.add(call.script)
                    self._send(_packed(call, self._scripts[call.script]))
                    answers[at] = self._connection.read_response(disable_decoding=True)
                elif isinstance(answer, ResponseError):
                    raise answer
        return answers

    def _load(self, script: Script) -> None:
        # By EVAL: before Redis 7, SCRIPT LOAD would hand it to replicas too.
        self._send(_pack((b"EVAL", script.text, 0)))
        self._connection.read_response(disable_decoding=True)

    def checked(self, answer: Any) -> Any:
        """Return an answer, or raise what it is."""
        if isinstance(answer, Exception):
            with errors_of(self.where):
                raise answer
        return answer

    def _send(self, packed: bytes) -> None:
        self._connection.send_packed_command([packed], check_health=False)

    def _answer(self) -> Any:
        try:
            return self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed it, where no answer is waited for."""
        if self.socket is None:
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            return bool(selector.select(0))

    # Listening

    @property
    def socket(self) -> Any:
        """The socket, for a thread that waits for what is published."""
        return self._connection._sock

    def say(self, *words: bytes | str) -> None:
        """Send a command whose answer comes among what is published."""
        with errors_of(self.where):
            self._send(_pack(words))

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._connection.disconnect()


def _packed(call: Call, script: Script) -> bytes:
    return _pack((b"EVALSHA", script.sha, len(call.keys), *call.keys, *call.args))


def connection_to(address: Address, host: str, port: int) -> Any:
    """Return a connection, not yet open, that never tries again by itself."""
    kind: Any = SSLConnection if address.is_tls else Connection
    return kind(
        host=host,
        port=port,
        db=address.db,
        username=address.username,
        password=address.password,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=CONNECT_TIMEOUT,
        socket_keepalive=True,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        **address.tls,
    )


def _version(about: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(part) for part in about.get("redis_version", "0").split(".")[:2])

"""Who is connected: every live connection of this process."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterator

import msgspec

from catenary.connection import Connection
from catenary.context import ConnectionStatus
from catenary.errors import CloseCode
from catenary.eventlog.base import EventLog
from catenary.hub import Hub
from catenary.limits import Limits
from catenary.observe.counters import Counters
from catenary.position import Position
from catenary.supervisor import Supervisor

logger = logging.getLogger("catenary.manager")

TICKS_AN_INTERVAL = 5


class ConnectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told of one connection. Times in seconds."""

    connection_id: str
    user_id: str
    session_id: str | None
    log_id: str
    status: ConnectionStatus
    position: Position
    lag: int
    """How many events the log has beyond this cursor."""
    silent_for: float
    opened_at: float


class WebSocketManager:
    """
    Knows the live connections of this process, on every loop.

    Made by the factory; ``get_websocket_manager()`` returns the one of the
    process. Methods that look may be called from any thread; connections are
    closed on their own loops.
    """

    def __init__(
        self, log: EventLog, *, limits: Limits | None = None, supervisor: Supervisor | None = None
    ) -> None:
        self.log = log
        self.limits = limits or Limits()
        self.supervisor = supervisor or Supervisor()
        self.counters = Counters()
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self._by_user: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        self.waiting_for_auth = 0

    # Joining and leaving

    def hub(self) -> Hub:
        """Return the hub of the running loop."""
        loop = asyncio.get_running_loop()
        hub = self._hubs.get(loop)
        if hub is None:
            self._forget_closed_loops()
            hub = Hub(self.log, self.counters, self.limits)
            self._hubs[loop] = hub
        return hub

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._hubs if loop.is_closed()]:
            del self._hubs[loop]

    def add(self, connection: Connection, user_id: str) -> None:
        """
        Count a connection among its user's.

        Over the limit the longest silent one is closed, for the new one is the
        one that somebody looks at.
        """
        connections = self._by_user[user_id]
        connections[connection] = None
        self.counters.connections_opened += 1
        if len(connections) > self.limits.connections_per_user:
            others = [
                other
                for other in connections
                if other is not connection and other.session.status is not ConnectionStatus.CLOSING
            ]
            silent = min(others, key=lambda other: other.transport.last_heard, default=None)
            if silent is not None:
                silent.close(
                    CloseCode.TOO_MANY_CONNECTIONS,
                    f"over {self.limits.connections_per_user} connections; "
                    "this was the longest silent",
                )

    def remove(self, connection: Connection, user_id: str) -> None:
        """Forget a connection. Idempotent."""
        connections = self._by_user.get(user_id)
        if connections is None:
            return
        connections.pop(connection, None)
        if not connections:
            del self._by_user[user_id]

    # Looking

    def _all(self) -> Iterator[Connection]:
        for connections in list(self._by_user.values()):
            yield from list(connections)

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return sum(map(len, list(self._by_user.values())))

    def connections(self, user_id: str | None = None) -> list[ConnectionInfo]:
        """Return what is known of a user's connections here, or of all."""
        chosen = self._all() if user_id is None else list(self._by_user.get(user_id, ()))
        return [_info(connection) for connection in chosen]

    def lags(self) -> list[int]:
        """Return, for each open connection, how many events the log has beyond its cursor."""
        return [_lag(connection) for connection in self._all()]

    def find(self, user_id: str, connection_id: str) -> Connection | None:
        """Return a connection of this user's that is open here; for its own loop."""
        return next(
            (
                connection
                for connection in list(self._by_user.get(user_id, ()))
                if connection.session.connection_id == connection_id
            ),
            None,
        )

    async def is_online(self, user_id: str) -> bool:
        """Whether a connection of this user is open."""
        return bool(self._by_user.get(user_id))

    async def disconnect(
        self,
        user_id: str,
        session_id: str | None = None,
        *,
        code: CloseCode = CloseCode.FORBIDDEN,
        reason: str = "disconnected by the application",
    ) -> int:
        """Close a user's connections, or those of one session; returns how many."""
        chosen = [
            connection
            for connection in list(self._by_user.get(user_id, ()))
            if session_id is None
            or (connection.identity and connection.identity.session_id == session_id)
        ]
        for connection in chosen:
            connection.hub.loop.call_soon_threadsafe(connection.close, code, reason)
        return len(chosen)

    # Time

    async def keep_time(self) -> None:
        """Give the connections of this loop their heartbeats, until cancelled."""
        interval = self.limits.heartbeat_interval
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(interval / TICKS_AN_INTERVAL)
            self.tick(loop.time(), time.time())

    def tick(self, now: float, wall_clock: float) -> None:
        """
        Do what is due for the connections of the running loop.

        ``now`` is a time of that loop, ``wall_clock`` seconds since 1970.
        """
        hub = self.hub()
        hub.trim_tails()
        interval = self.limits.heartbeat_interval
        for connection in self._all():
            if connection.hub is hub:
                connection.expire(wall_clock)
                connection.tick(now, interval, TICKS_AN_INTERVAL)

    async def say_closing(self, reason: str, *, within: float) -> None:
        """Announce a planned close to every connection of this loop, in slices, and make it."""
        hub = self.hub()
        for number, connection in enumerate(self._all()):
            if connection.hub is hub:
                connection.say_closing(reason, random.uniform(0.1, max(0.1, within)))  # noqa: S311
            if number % 100 == 99:
                await asyncio.sleep(0)


def _info(connection: Connection) -> ConnectionInfo:
    identity = connection.identity
    return ConnectionInfo(
        connection_id=connection.session.connection_id,
        user_id=identity.user_id if identity is not None else "",
        session_id=identity.session_id if identity is not None else None,
        log_id=connection.log_id,
        status=connection.session.status,
        position=connection.place,
        lag=_lag(connection),
        silent_for=max(0.0, connection.hub.loop.time() - connection.transport.last_heard),
        opened_at=connection.opened_at,
    )


def _lag(connection: Connection) -> int:
    stream = connection.stream
    return max(0, stream.head - connection.place.seq) if stream is not None else 0

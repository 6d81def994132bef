"""Who is connected: every live connection of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeVarTuple, Unpack

import msgspec

from catenary.connection import Connection
from catenary.crowds import ENDING, Crowds, over
from catenary.errors import CloseCode
from catenary.eventlog.base import EventLog
from catenary.hub import Hub
from catenary.inquiries import ConnectionInfo, Disconnect, Look, Looked, decode_question
from catenary.limits import Limits
from catenary.observe.counters import Counters
from catenary.supervisor import Supervisor
from catenary.surroundings import HERE, Surroundings

logger = logging.getLogger("catenary.manager")

TICKS_AN_INTERVAL = 5

A = TypeVarTuple("A")


class WebSocketManager:
    """
    Knows the live connections of this process, on every loop, and asks the other nodes for theirs.

    Made by the factory; ``get_websocket_manager()`` returns the one of the
    process. Methods that look may be called from any thread; connections are
    closed on their own loops. On a log that several nodes share, what a node
    does not answer within a second is left out.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        limits: Limits | None = None,
        supervisor: Supervisor | None = None,
        surroundings: Surroundings = HERE,
    ) -> None:
        self.log = log
        self.limits = limits or Limits()
        self.supervisor = supervisor or Supervisor()
        self.counters = Counters()
        self._surroundings = surroundings
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self._by_user: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._crowds = Crowds(self.limits.connections_per_user, self.everywhere, self._ask_to_close)
        self.waiting_for_auth = 0
        log.nodes.answerers.add(self)

    # Joining and leaving

    def hub(self) -> Hub:
        """Return the hub of the running loop."""
        loop = asyncio.get_running_loop()
        hub = self._hubs.get(loop)
        if hub is None:
            self._forget_closed_loops()
            hub = Hub(self.log, self.counters, self.limits, self._surroundings)
            self._hubs[loop] = hub
        return hub

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._hubs if loop.is_closed()]:
            self._hubs.pop(loop).leave()
        for connection in self._all():
            if connection.hub.loop.is_closed() and connection.identity is not None:
                self.remove(connection, connection.identity.user_id)

    def add(self, connection: Connection, user_id: str) -> None:
        """
        Count a connection among its user's.

        Over the limit the longest silent one is closed, for the new one is the
        one that somebody looks at.
        """
        with self._lock:
            others = [
                other
                for other in self._by_user[user_id]
                if other is not connection and other.session.status not in ENDING
            ]
            is_new = connection not in self._by_user[user_id]
            self._by_user[user_id][connection] = None
            self.counters.connections_opened += 1
        if is_new:
            self.log.nodes.arrived(user_id)
        limit = self.limits.connections_per_user
        if len(others) >= limit:
            silent = min(others, key=lambda other: other.transport.last_heard)
            on_its_loop(silent, silent.close, CloseCode.TOO_MANY_CONNECTIONS, over(limit))

    def crowded(self, user_id: str, connections: int) -> None:
        """Hear how many connections a user has to all nodes. Thread-safe."""
        if connections > self.limits.connections_per_user:
            for connection in list(self._by_user.get(user_id, ()))[:1]:
                on_its_loop(connection, self._crowds.thin_out, user_id)

    def remove(self, connection: Connection, user_id: str) -> None:
        """Forget a connection. Idempotent."""
        with self._lock:
            connections = self._by_user.get(user_id)
            if connections is None or connection not in connections:
                return
            del connections[connection]
            if not connections:
                del self._by_user[user_id]
        self.log.nodes.left(user_id)

    # Looking

    def _all(self) -> Iterator[Connection]:
        for connections in list(self._by_user.values()):
            yield from list(connections)

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return sum(map(len, list(self._by_user.values())))

    def open_connections(self) -> list[Connection]:
        """Return the connections themselves; each is for its own loop."""
        return list(self._all())

    def connections(self, user_id: str | None = None) -> list[ConnectionInfo]:
        """Return what is known of a user's connections here, or of all."""
        chosen = self._all() if user_id is None else list(self._by_user.get(user_id, ()))
        node, now = self.log.holder, self.log.now_ms() / 1000
        return [_info(connection, node, now) for connection in chosen]

    async def everywhere(self, user_id: str | None = None) -> Looked:
        """Return what is known of a user's connections on all nodes, and of messages at work."""
        looked = Looked()
        for answer in await self.log.nodes.ask(msgspec.json.encode(Look(user_id=user_id))):
            found = msgspec.json.decode(answer, type=Looked)
            looked.connections.extend(found.connections)
            looked.handlers.extend(found.handlers)
        return looked

    def answer(self, question: bytes) -> bytes | None:
        """Answer what a node asks all others. Thread-safe."""
        asked = decode_question(question)
        if isinstance(asked, Look):
            looked = Looked(self.connections(asked.user_id), self.log.handlings.keys)
            return msgspec.json.encode(looked)
        return msgspec.json.encode(self._disconnect(asked))

    def lags(self) -> list[int]:
        """Return, for each open connection, how many events the log has beyond its cursor."""
        return [_lag(connection) for connection in self._all()]

    def crowds(self, least: int) -> list[tuple[str, int]]:
        """Return the users with at least so many open connections, and how many those are."""
        counts = [(user_id, len(found)) for user_id, found in list(self._by_user.items())]
        return [(user_id, count) for user_id, count in counts if count >= least]

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
        """Whether a connection of this user is open, on whatever node."""
        return await self.log.nodes.is_present(user_id)

    async def disconnect(
        self,
        user_id: str,
        session_id: str | None = None,
        *,
        code: CloseCode = CloseCode.FORBIDDEN,
        reason: str = "disconnected by the application",
    ) -> int:
        """Close a user's connections on all nodes, or those of one session; returns how many."""
        return await self._ask_to_close(
            Disconnect(user_id=user_id, session_id=session_id, code=code, reason=reason)
        )

    async def _ask_to_close(self, asked: Disconnect) -> int:
        answers = await self.log.nodes.ask(msgspec.json.encode(asked))
        return sum(msgspec.json.decode(answer, type=int) for answer in answers)

    def _disconnect(self, asked: Disconnect) -> int:
        chosen = [
            connection
            for connection in list(self._by_user.get(asked.user_id, ()))
            if asked.session_id is None
            or (connection.identity and connection.identity.session_id == asked.session_id)
            if asked.connection_ids is None
            or connection.session.connection_id in asked.connection_ids
        ]
        for connection in chosen:
            on_its_loop(connection, connection.close, CloseCode(asked.code), asked.reason)
        return len(chosen)

    # Time

    async def keep_time(self) -> None:
        """Give the connections their heartbeats, until cancelled."""
        interval = self.limits.heartbeat_interval
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(interval / TICKS_AN_INTERVAL)
            self.tick(loop.time(), self.log.now_ms() / 1000)

    def tick(self, now: float, wall_clock: float) -> None:
        """
        Do what is due for every connection, each on its own loop.

        ``now`` is a time of the running loop, ``wall_clock`` seconds since 1970.
        """
        here = self.hub()
        self._tick(here, now, wall_clock)
        for loop, hub in list(self._hubs.items()):
            if hub is not here:
                # A loop that has closed meanwhile has nothing that is due.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._tick, hub, None, wall_clock)

    def _tick(self, hub: Hub, now: float | None, wall_clock: float) -> None:
        hub.trim_tails()
        moment = hub.loop.time() if now is None else now
        for connection in self._all():
            if connection.hub is hub:
                try:
                    connection.expire(wall_clock)
                    connection.tick(moment, self.limits.heartbeat_interval, TICKS_AN_INTERVAL)
                except Exception as error:
                    connection.failed(error)

    async def say_closing(self, reason: str, *, within: float) -> None:
        """Announce a planned close to every connection, in slices, and make it."""
        for number, connection in enumerate(self._all()):
            wait = self._surroundings.uniform(0.1, max(0.1, within))
            on_its_loop(connection, connection.say_closing, reason, wait)
            if number % 100 == 99:
                await asyncio.sleep(0)


def on_its_loop(connection: Connection, act: Callable[[Unpack[A]], None], *arguments: *A) -> None:
    """Call a method of a connection on its loop: now, if that is the running one."""
    loop = connection.hub.loop
    if loop is asyncio._get_running_loop():
        act(*arguments)
        return
    # With a loop that has closed its connections are gone.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(act, *arguments)


def _info(connection: Connection, node: str, now: float) -> ConnectionInfo:
    identity = connection.identity
    silent_for = max(0.0, connection.hub.loop.time() - connection.transport.last_heard)
    return ConnectionInfo(
        connection_id=connection.session.connection_id,
        node=node,
        user_id=identity.user_id if identity is not None else "",
        session_id=identity.session_id if identity is not None else None,
        log_id=connection.log_id,
        status=connection.session.status,
        position=connection.place,
        lag=_lag(connection),
        silent_for=silent_for,
        heard_at=now - silent_for,
        opened_at=connection.opened_at,
    )


def _lag(connection: Connection) -> int:
    stream = connection.stream
    return max(0, stream.head - connection.place.seq) if stream is not None else 0

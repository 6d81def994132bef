"""
A live bridge under the eyes of a monitor.

What is watched gets, for that time, a class in front of its own that says what
must hold and then does what it always did. Nothing of the bridge asks whether
it is watched, so a bridge that is not pays nothing for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from catenary.errors import UsageError
from catenary.eventlog.stepping import StepLock
from catenary.validate.threads.locks import MonitoredLock

if TYPE_CHECKING:
    from catenary.connection import Connection
    from catenary.errors import CloseCode
    from catenary.eventlog.stream import Stream
    from catenary.eventlog.tail import Tail
    from catenary.factory import WebSocketBridgeFactory
    from catenary.validate.threads.monitor import ThreadMonitor

_BEHIND = "_catenary_class_behind"


@contextmanager
def watching(monitor: ThreadMonitor, factory: WebSocketBridgeFactory) -> Iterator[None]:
    """Watch a bridge; see :meth:`ThreadMonitor.watching`."""
    watch = _Watch(monitor, factory)
    watch.begin()
    try:
        yield
    finally:
        watch.end()


class _Watch:
    """One bridge, for the time in which it is watched."""

    def __init__(self, monitor: ThreadMonitor, factory: WebSocketBridgeFactory) -> None:
        self.monitor = monitor
        self.lock: MonitoredLock
        self._former: StepLock
        self._log = factory.log
        self._manager = factory.manager
        self._is_over = False
        self._fronts: dict[type, type] = {}
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()

    def begin(self) -> None:
        """Put the classes in front, and the lock."""
        with self._log._lock:
            self._log.exchange_lock(self._monitored)
        self._see(_log, self._log)
        for stream in self._log.streams():
            self.see_stream(stream)
        self._see(_manager, self._manager)
        for connection in self._manager.open_connections():
            self.see_connection(connection)

    def _monitored(self, lock: Any) -> MonitoredLock:
        if isinstance(lock, MonitoredLock):
            raise UsageError(f"the bridge of {self._log.url} is watched already")
        self._former = lock
        self.lock = self.monitor.lock(lock, f"step of {self._log.url}")
        return self.lock

    def end(self) -> None:
        """Take everything off again."""
        with self.lock:
            self._is_over = True
            for each in (self._manager, self._log, *self._connections):
                _take_off(each)
            for stream in self._log.streams():
                _take_off(stream)
                _take_off(stream.tail)
            self._log.exchange_lock(lambda _: self._former)

    def see_stream(self, stream: Stream) -> None:
        """Watch a stream and its tail."""
        self._see(_stream, stream)
        self.see_tail(stream.tail)

    def see_tail(self, tail: Tail | None) -> None:
        """Watch a tail, if there is one."""
        if tail is not None:
            self._see(_stepped, tail)

    def see_connection(self, connection: Connection) -> None:
        """Watch a connection."""
        self._connections.add(connection)
        self._see(_connection, connection)

    def _see(self, front: Callable[[Any, _Watch], type], watched: object) -> None:
        if hasattr(watched, _BEHIND):
            return
        # Under the lock, so that nothing is put after the end, which takes everything off.
        with self.lock:
            if not self._is_over:
                made = self._front(front, type(watched))
                object.__setattr__(watched, "__class__", made)

    def _front(self, front: Callable[[Any, _Watch], type], kind: type) -> type:
        made = self._fronts.get(kind)
        if made is None:
            made = self._fronts[kind] = front(kind, self)
            # It is to everybody else what the class behind it is.
            made.__name__, made.__qualname__ = kind.__name__, kind.__qualname__
            setattr(made, _BEHIND, kind)
        return made


def _take_off(watched: object) -> None:
    behind = getattr(watched, _BEHIND, None)
    if behind is not None:
        object.__setattr__(watched, "__class__", behind)


# The classes in front. They have no slots, so that they fit in the place of those behind, and do
# not say `super()`, for they may be taken off while one of their methods is called.


def _log(kind: Any, watch: _Watch) -> type:
    """A log whose streams are watched from their first use on."""

    class Log(kind):  # type: ignore[misc]
        __slots__ = ()

        def stream(self, log_id: str) -> Stream:
            stream: Stream = kind.stream(self, log_id)
            watch.see_stream(stream)
            return stream

    return Log


def _stepped(kind: Any, watch: _Watch) -> type:
    """Something that changes only in a step of its log."""

    class Stepped(kind):  # type: ignore[misc]
        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            watch.monitor.expect_held(watch.lock, f"{kind.__name__}.{name} =")
            kind.__setattr__(self, name, value)

    return Stepped


def _stream(kind: Any, watch: _Watch) -> type:
    """A stream, with the tails that it gets."""
    stepped: Any = _stepped(kind, watch)

    class WithTails(stepped):  # type: ignore[misc]
        __slots__ = ()

        def __setattr__(self, name: str, value: Any) -> None:
            stepped.__setattr__(self, name, value)
            if name == "tail":
                watch.see_tail(value)

    return WithTails


def _manager(kind: Any, watch: _Watch) -> type:
    """A manager whose connections are watched from their joining on."""

    class Manager(kind):  # type: ignore[misc]
        __slots__ = ()

        def add(self, connection: Connection, user_id: str) -> None:
            watch.see_connection(connection)
            kind.add(self, connection, user_id)

    return Manager


def _connection(kind: Any, watch: _Watch) -> type:
    """A connection, which belongs to its loop."""

    def expect(connection: Connection, act: str) -> None:
        what = f"{act} of connection {connection.session.connection_id}"
        watch.monitor.expect_on(connection.hub.loop, what)

    class Belonging(kind):  # type: ignore[misc]
        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            expect(self, f"{name} =")
            kind.__setattr__(self, name, value)

        def pump(self) -> None:
            expect(self, "pump()")
            kind.pump(self)

        def close(self, code: CloseCode, reason: str) -> None:
            expect(self, "close()")
            kind.close(self, code, reason)

        def closed(self, code: int, reason: str) -> None:
            expect(self, "closed()")
            kind.closed(self, code, reason)

    return Belonging

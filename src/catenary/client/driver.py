"""A client's session on an event loop: its sockets, its clock and its tokens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from catenary.client.connection import (
    ABNORMAL,
    Dialing,
    Ended,
    Refused,
    Socket,
    Unreachable,
    open_socket,
)
from catenary.client.session import Session
from catenary.client.state import Disconnect, State
from catenary.client.token import TokenSource, expiry, refresh_wait
from catenary.errors import AuthError, CatenaryError, CloseCode, ConnectionClosed, ProtocolError

logger = logging.getLogger("catenary.client")

_PROTOCOL_ERROR = 1002
_UNAUTHENTICATED = (401, CloseCode.NOT_AUTHENTICATED)
_FORBIDDEN = (403, CloseCode.FORBIDDEN)

Ending = Ended | Refused | Unreachable


class Driver:
    """
    Does what a session wants done, until it is closed.

    Whoever gives the session an input calls :meth:`pump` after it.
    ``on_change`` is called whenever something may have changed; ``failure``
    is why the client stays away, once it does.
    """

    def __init__(
        self,
        session: Session,
        dialing: Dialing,
        tokens: TokenSource,
        on_change: Callable[[], None],
    ) -> None:
        self.session = session
        self.failure: Exception | None = None
        self._dialing = dialing
        self._tokens = tokens
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket: Socket | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._moved = asyncio.Event()
        self._has_fetched_again = False
        self._farewell: list[str] = []
        self._goodbye: int | None = None
        self._bytes_before = 0

    @property
    def bytes_received(self) -> int:
        """How many bytes have come, over all connections."""
        return self._bytes_before + (self._socket.bytes_received if self._socket else 0)

    @property
    def is_held_back(self) -> bool:
        """Whether reading stopped because the application is behind."""
        return not self._readable.is_set()

    async def run(self) -> None:
        """Connect again and again, until the session is closed."""
        try:
            self.pump()
            while self.session.state is not State.CLOSED:
                if self.session.state is State.CONNECTING:
                    await self._attempt()
                else:
                    self._moved.clear()
                    await self._moved.wait()
        except Exception as error:  # the top of the task: the application hears of it
            self._fail(error)
        finally:
            self._disarm()

    def stop(self) -> None:
        """Say a last word and close; :meth:`run` is then to be cancelled."""
        self.session.report_now(self._loop.time())
        self._farewell = self.session.messages_to_send()
        self._goodbye = CloseCode.NORMAL
        self.session.stop()
        self.pump()

    def pump(self) -> None:
        """Do what the session wants now."""
        self._on_change()
        session = self.session
        # Before the greeting nothing is held back: it must be read whatever waits.
        if session.may_read or not session.is_open:
            self._readable.set()
        else:
            self._readable.clear()
        if session.has_messages:
            self._writable.set()
        self._moved.set()
        disconnect = session.disconnect_to_make()
        if disconnect is not None:
            self._disconnect(disconnect)
        self._arm()

    # The clock

    def _arm(self) -> None:
        deadline = self.session.next_deadline()
        if deadline is None or deadline == float("inf"):
            self._disarm()
        elif self._timer is None or deadline < self._timer.when():
            self._disarm()
            self._timer = self._loop.call_at(deadline, self._tick, deadline)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self, due: float) -> None:
        self._timer = None
        now = self._loop.time()
        if self._socket is not None:
            self.session.heard(self._life_sign(self._socket, due, now))
        self.session.tick(now)
        self.pump()

    def _life_sign(self, socket: Socket, due: float, now: float) -> float:
        # What is not read cannot be heard; and a loop that was held up has not
        # read yet what came meanwhile. Neither says anything about the server.
        is_deaf = not socket.is_reading or now - due > self._interval / 2
        return now if is_deaf else socket.heard_at

    @property
    def _interval(self) -> float:
        connected = self.session.connected
        return 15.0 if connected is None else connected.heartbeat_interval

    def _disconnect(self, disconnect: Disconnect) -> None:
        level = logging.WARNING if disconnect is Disconnect.FAULT else logging.INFO
        logger.log(level, "gave up the connection: %s %s", disconnect, self.session.close_reason)
        if disconnect is Disconnect.FAULT:
            self._goodbye = _PROTOCOL_ERROR
        elif disconnect is Disconnect.BEHIND:
            self._goodbye = CloseCode.NORMAL
        elif disconnect is not Disconnect.STOPPED and self._socket is not None:
            self._socket.drop()

    # An attempt, and the connection that it may become

    async def _attempt(self) -> None:
        number = self.session.attempts
        while True:
            ending = await self._try(number)
            is_current = number == self.session.attempts and self._is_talking
            if ending is None or not is_current or not self._deserves_another_token(ending):
                break
            self._has_fetched_again = True
        if ending is not None and is_current:
            self._tell(ending)
        self.pump()

    async def _try(self, number: int) -> Ending | None:
        try:
            async with asyncio.timeout_at(self.session.next_deadline()):
                token = await self._fetch_token()
                socket = await open_socket(self._dialing, self.session.after, token)
        except TimeoutError:
            self.session.tick(self._loop.time())
            return Unreachable("the attempt took too long")
        except (Refused, Unreachable) as ending:
            return ending
        return await self._converse(socket, token, number)

    async def _fetch_token(self) -> str | None:
        try:
            return await self._tokens.fetch()
        except CatenaryError:
            raise
        except Exception as error:
            # A token service that is away is like a server that is away.
            logger.warning("the token function failed; trying again", exc_info=True)
            raise Unreachable(f"no token: {error!r}") from error

    async def _converse(self, socket: Socket, token: str | None, number: int) -> Ended | None:
        self._socket = socket
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._write(socket)),
                    group.create_task(self._show_life(socket)),
                    group.create_task(self._refresh(token)),
                ]
                ending = await self._read(socket, number)
                for task in beside:
                    task.cancel()
            return ending
        finally:
            await self._part(socket)

    async def _part(self, socket: Socket) -> None:
        self._bytes_before += socket.bytes_received
        self._socket = None
        goodbye, self._goodbye = self._goodbye, None
        try:
            if goodbye is not None:
                async with asyncio.timeout(self._dialing.close_timeout):
                    for text in self._farewell:
                        await socket.write(text)
                await socket.leave(goodbye, self.session.close_reason)
        except TimeoutError:
            pass  # the server takes nothing more; dropping it is all that is left
        finally:
            socket.drop()

    async def _read(self, socket: Socket, number: int) -> Ended | None:
        while True:
            await self._readable.wait()
            try:
                raw = await socket.next_message()
            except Ended as ending:
                return ending
            if number != self.session.attempts or not self._is_talking:
                return None
            self.session.receive(raw, self._loop.time())
            if self.session.is_open:
                self._has_fetched_again = False
            self.pump()
            if not self._is_talking:
                return None

    async def _write(self, socket: Socket) -> None:
        while True:
            await self._writable.wait()
            self._writable.clear()
            for text in self.session.messages_to_send():
                if not await socket.write(text):
                    return

    async def _show_life(self, socket: Socket) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if not socket.is_reading:
                await socket.show_life()

    async def _refresh(self, token: str | None) -> None:
        while self._tokens.is_fresh_each_time and (expires_at := expiry(token)) is not None:
            await asyncio.sleep(refresh_wait(expires_at, time.time()))
            try:
                token = await self._fetch_token()
            except Unreachable:
                continue
            except CatenaryError:
                logger.warning("no further token; the connection ends with the present one")
                return
            if token is not None:
                self.session.authenticate(token)
                self.pump()

    # How it ended

    @property
    def _is_talking(self) -> bool:
        return self.session.state in (State.CONNECTING, State.REPLAYING, State.LIVE)

    def _deserves_another_token(self, ending: Ending) -> bool:
        return (
            self._tokens.is_fresh_each_time
            and not self._has_fetched_again
            and self.session.state is State.CONNECTING
            and _code(ending) in _UNAUTHENTICATED + _FORBIDDEN
        )

    def _tell(self, ending: Ending) -> None:
        session, now = self.session, self._loop.time()
        was_connecting = session.state is State.CONNECTING
        level = logging.INFO if isinstance(ending, Ended) else logging.WARNING
        logger.log(level, "%s %s", type(ending).__name__.lower(), ending)
        if isinstance(ending, Refused):
            session.refused(ending.status, now, ending.retry_after)
        elif isinstance(ending, Unreachable):
            session.connection_lost(ABNORMAL, now, str(ending))
        elif ending.is_own:
            self._fail(ProtocolError("too_large", f"a message of the server is: {ending.reason}"))
        else:
            session.connection_lost(ending.code, now, ending.reason)
        if session.state is State.CLOSED and self.failure is None:
            self.failure = _failure(ending, was_connecting=was_connecting)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.session.stop()
        self.pump()


def _code(ending: Ending) -> int:
    if isinstance(ending, Refused):
        return ending.status
    return ending.code if isinstance(ending, Ended) else ABNORMAL


def _failure(ending: Ending, *, was_connecting: bool) -> CatenaryError:
    code = _code(ending)
    text = str(ending.args[1]) if len(ending.args) > 1 else str(ending)
    for status, close_code in (_UNAUTHENTICATED, _FORBIDDEN):
        if was_connecting and code in (status, close_code):
            return AuthError(text or "refused", close_code=close_code, status=status)
    return ConnectionClosed(code, text)

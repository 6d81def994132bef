"""Messages of clients: each is handled once, in order, and answered."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from catenary.auth import AuthorizeThread, Identity, authorize_thread, may_use_thread
from catenary.constructor import checked_config, checked_manager, checked_optional
from catenary.context import UserWebSocketContext
from catenary.emitter import UserWebSocketEmitter
from catenary.encoding import encode
from catenary.errors import LogError, ProtocolError, UsageError
from catenary.eventlog.model import ClaimState
from catenary.events import EventType, UserMessage
from catenary.manager import WebSocketManager
from catenary.session import ClientMessage
from catenary.threads import call_in_thread
from catenary.voice import Redactor

SYNC_THREADS = 64
SYNC_PER_USER = 4


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A client's message, as handlers get it."""

    id: str
    type: str
    thread_id: str | None
    data: Any
    identity: Identity


Handler = Callable[[Message, UserWebSocketEmitter], Any]


class HandlerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How messages are handled. ``timeout`` in seconds."""

    timeout: float = 30.0
    threads: int = SYNC_THREADS
    threads_per_user: int = SYNC_PER_USER


class _Registered(msgspec.Struct, frozen=True):
    handler: Handler
    is_async: bool
    retry: bool


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message came from."""

    identity: Identity
    log_id: str
    connection_id: str | None = None


class MessageHandlerService:
    """
    Handles the messages of clients with the handlers that were registered.

    A message is started at most once per user and id, however often it is
    sent; its reply is stored and sent again. A handler that fails or hangs
    answers with an error and harms nobody. ``redis_client`` and ``db_session``
    are kept for the application's handlers; the service does not use them.

    Raises:
        TypeError: For an unknown argument, a missing manager, or one of a
            wrong type; the text names the right one.
    """

    def __init__(
        self,
        *,
        websocket_manager: Any = None,
        redis_client: Any = None,
        db_session: Any = None,
        logger: logging.Logger | None = None,
        config: HandlerConfig | Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        self._manager_or_getter = checked_manager(websocket_manager, unknown)
        self.redis_client = redis_client
        self.db_session = db_session
        self.logger = checked_optional(
            "logger", logger, logging.Logger, logging.getLogger("catenary.inbound")
        )
        self.config = checked_config(config, HandlerConfig)
        self.authorize_thread: AuthorizeThread = authorize_thread
        self.redactor: Redactor | None = None
        self._handlers: dict[str, _Registered] = {}
        self._in_flight: dict[tuple[str, str], asyncio.Future[bytes]] = {}
        self._sync_running: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def manager(self) -> WebSocketManager:
        """The manager; a lazy one is got with the first use."""
        manager = self._manager_or_getter
        if not isinstance(manager, WebSocketManager):
            manager = self._manager_or_getter = manager()
        return manager

    @property
    def running_sync(self) -> int:
        """How many threads of synchronous handlers are busy, hung ones included."""
        return sum(self._sync_running.values())

    @property
    def in_flight(self) -> list[tuple[str, str]]:
        """The (log id, message id) of every message that is being handled."""
        return list(self._in_flight)

    def register(self, type: str, handler: Handler, *, retry: bool = False) -> None:
        """
        Handle messages of a type with ``handler(message, emitter) -> reply``.

        ``retry=True`` says that the handler may run again for a message whose
        process died: at least once instead of at most once.

        Raises:
            UsageError: If the type has a handler, or the handler cannot be called.
        """
        if not callable(handler):
            raise UsageError(f"a handler is a function, not {type!r:.60}")
        if type in self._handlers:
            raise UsageError(f"messages of type {type!r} have a handler already")
        is_async = inspect.iscoroutinefunction(handler)
        self._handlers[type] = _Registered(handler, is_async, retry)

    def handles(self, type: str) -> bool:
        """Whether messages of this type have a handler."""
        return type in self._handlers

    async def handle(self, source: Source, message: ClientMessage) -> bytes:
        """
        Handle one message; return the JSON of its answer, an ack or an error.

        Never raises for what the client sent.
        """
        try:
            answer, result = await self._answered(source, message)
        except ProtocolError as error:
            answer, result = _error(message, error.code, error.message), error.code
        except LogError as error:
            self.logger.warning("message %s of %s: %s", message.id, source.log_id, error)
            answer = _error(message, "overloaded", "the event log cannot be written; try again")
            result = "overloaded"
        self.manager.counters.inbound[result] += 1
        return answer

    async def _answered(self, source: Source, message: ClientMessage) -> tuple[bytes, str]:
        registered = self._handlers.get(message.type)
        if registered is None:
            raise ProtocolError("unknown_type", f"nothing handles {message.type[:40]!r} here")
        if message.thread_id is not None and not await may_use_thread(
            self.authorize_thread, source.identity, message.thread_id
        ):
            raise ProtocolError("not_found", "no such thread")
        command_id = str(message.id)
        log = self.manager.log
        claim = await log.claim_command(source.log_id, command_id, _digest(message))
        if claim.state is ClaimState.DONE and claim.reply is not None:
            return claim.reply, "repeat"
        if claim.state is ClaimState.CONFLICT:
            raise ProtocolError("id_conflict", f"id {command_id!r} was used for other content")
        if claim.state is ClaimState.HELD:
            return await self._same_reply(source, command_id), "repeat"
        if claim.state is ClaimState.INTERRUPTED:
            if not registered.retry:
                raise ProtocolError("interrupted", "the server stopped while it handled this")
            await log.reclaim_command(source.log_id, command_id)
        return await self._claimed(registered, source, message)

    async def _same_reply(self, source: Source, command_id: str) -> bytes:
        future = self._in_flight.get((source.log_id, command_id))
        if future is None:
            raise ProtocolError("interrupted", "its handling was given up")
        return await asyncio.shield(future)

    async def _claimed(
        self, registered: _Registered, source: Source, message: ClientMessage
    ) -> tuple[bytes, str]:
        key = (source.log_id, str(message.id))
        future = self._in_flight[key] = asyncio.get_running_loop().create_future()
        try:
            answer, result = await self._run(registered, source, message)
            await self.manager.log.finish_command(*key, answer)
            future.set_result(answer)
        finally:
            del self._in_flight[key]
            if not future.done():
                future.cancel()
        return answer, result

    async def _run(
        self, registered: _Registered, source: Source, message: ClientMessage
    ) -> tuple[bytes, str]:
        emitter = self._emitter(source, message)
        if message.type == EventType.USER_MESSAGE:
            await self._publish_question(emitter, message)
        taken = Message(
            id=str(message.id),
            type=message.type,
            thread_id=message.thread_id,
            data=message.data,
            identity=source.identity,
        )
        try:
            reply = await self._call(registered, taken, emitter)
        except ProtocolError as error:
            return _error(message, error.code, error.message), error.code
        except Exception:
            self.logger.exception(
                "the handler of %s failed for message %s of %s",
                message.type, message.id, source.log_id,
            )  # fmt: skip
            return _error(message, "handler_failed", "the message could not be handled"), (
                "handler_failed"
            )
        return _ack(message, reply), "ok"

    def _emitter(self, source: Source, message: ClientMessage) -> UserWebSocketEmitter:
        context = UserWebSocketContext(
            user_id=source.identity.user_id,
            log_id=source.log_id,
            thread_id=message.thread_id,
            session_id=source.identity.session_id,
            connection_id=source.connection_id,
        )
        return UserWebSocketEmitter(
            self.manager.log,
            context,
            supervisor=self.manager.supervisor,
            redactor=self.redactor,
        )

    async def _publish_question(
        self, emitter: UserWebSocketEmitter, message: ClientMessage
    ) -> None:
        content = message.data.get("content") if isinstance(message.data, dict) else message.data
        await emitter.user_message(
            UserMessage(
                message_id=f"msg_{message.id}",
                content=content,
                client_message_id=str(message.id),
            ),
            idempotency_key=f"command:{message.id}",
        )

    # Calling handlers

    async def _call(
        self, registered: _Registered, message: Message, emitter: UserWebSocketEmitter
    ) -> Any:
        if registered.is_async:
            work: Awaitable[Any] = registered.handler(message, emitter)
        else:
            work = self._in_thread(registered.handler, message, emitter)
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        try:
            await asyncio.wait([task], timeout=self.config.timeout)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            task.cancel()
            self.logger.error("message %s of type %s hangs", message.id, message.type)
            raise ProtocolError("handler_timeout", f"not handled within {self.config.timeout:g} s")
        return task.result()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Looked at, so that a late failure of a hung handler is not reported twice.
            task.exception()

    async def _in_thread(
        self, handler: Handler, message: Message, emitter: UserWebSocketEmitter
    ) -> Any:
        user_id = message.identity.user_id
        if (
            self._sync_running[user_id] >= self.config.threads_per_user
            or self.running_sync >= self.config.threads
        ):
            raise ProtocolError("overloaded", "too many messages are being handled; try again")
        self._sync_running[user_id] += 1
        # A hung handler keeps its slot until its thread returns.
        return await call_in_thread(
            lambda: handler(message, emitter),
            name=f"catenary handler of {message.type}",
            on_end=lambda: self._released(user_id),
        )

    def _released(self, user_id: str) -> None:
        self._sync_running[user_id] -= 1
        if not self._sync_running[user_id]:
            del self._sync_running[user_id]


def _digest(message: ClientMessage) -> bytes:
    content = encode([message.type, message.thread_id, message.data])
    return hashlib.blake2b(content, digest_size=16).digest()


def _ack(message: ClientMessage, reply: Any) -> bytes:
    answer = {"type": "ack", "id": message.id}
    return encode(answer if reply is None else {**answer, "reply": reply})


def _error(message: ClientMessage, code: str, text: str) -> bytes:
    return encode({"type": "error", "id": message.id, "code": code, "message": text})

"""Messages of clients: each is handled once, in order, and answered."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from catenary.auth import AuthorizeThread, Identity, authorize_thread, may_use_thread
from catenary.constructor import checked_config, checked_manager, checked_optional
from catenary.context import UserWebSocketContext, check_id
from catenary.emitter import UserWebSocketEmitter
from catenary.encoding import encode
from catenary.errors import EventTooLarge, LogError, ProtocolError, UsageError
from catenary.eventlog.model import Claim, ClaimState
from catenary.events import EventType, UserMessage
from catenary.manager import WebSocketManager
from catenary.session import ClientMessage
from catenary.threads import call_in_thread, is_coroutine_function
from catenary.voice import Redactor

SYNC_THREADS = 64
SYNC_PER_USER = 4
ELSEWHERE_SECONDS = 0.05
ELSEWHERE_LIMIT_SECONDS = 1.0
"""A message that another node handles is asked for again after so long."""


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
    """
    Where a message came from.

    ``client_message_id`` is what the client calls the message, where that is
    not the message's id.
    """

    identity: Identity
    log_id: str
    connection_id: str | None = None
    client_message_id: str | None = None


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
        self._sync_running: Counter[str] = Counter()
        self._tasks: set[asyncio.Future[Any]] = set()

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
        return self.manager.log.handlings.keys

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
        is_async = is_coroutine_function(handler)
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
            reply, result = await self._answered(source, message)
        except ProtocolError as error:
            reply, result = _error(error.code, error.message), error.code
        except LogError as error:
            self.logger.warning("message %s of %s: %s", message.id, source.log_id, error)
            reply = _error("overloaded", "the event log cannot be written; try again")
            result = "overloaded"
        self.manager.counters.inbound[result] += 1
        # The id is not stored with the reply: it is echoed as it came, this time.
        return b'{"id":%b,%b' % (encode(message.id), reply[1:])

    async def _answered(self, source: Source, message: ClientMessage) -> tuple[bytes, str]:
        registered = self._handlers.get(message.type)
        if registered is None:
            raise ProtocolError("unknown_type", f"nothing handles {message.type[:40]!r} here")
        await self._check(source, message)
        key, digest = (source.log_id, str(message.id)), _digest(message)
        handlings = self.manager.log.handlings
        handling, is_ours = handlings.begin(key, digest)
        if not is_ours:
            if handling.digest != digest:
                raise _conflict(key)
            return await asyncio.shield(asyncio.wrap_future(handling.answer)), "repeat"
        try:
            reply, result = await self._once(registered, source, message, digest)
        except (ProtocolError, LogError) as error:
            handling.answer.set_exception(error)
            raise
        else:
            handling.answer.set_result(reply)
            return reply, result
        finally:
            handlings.end(key)
            if not handling.answer.done():
                handling.answer.set_exception(_given_up())

    async def _check(self, source: Source, message: ClientMessage) -> None:
        if message.thread_id is not None:
            try:
                check_id("thread_id", message.thread_id)
            except UsageError as error:
                raise ProtocolError("bad_message", str(error)) from None
            rule = self.authorize_thread
            if not await may_use_thread(rule, source.identity, message.thread_id):
                raise ProtocolError("not_found", "no such thread")
        if message.type == EventType.USER_MESSAGE and _content_of(message) is None:
            raise ProtocolError("bad_message", "user_message needs content in its data")

    async def _once(
        self, registered: _Registered, source: Source, message: ClientMessage, digest: bytes
    ) -> tuple[bytes, str]:
        """Start the handler, unless it was started before; nobody else here does this one."""
        log, key = self.manager.log, (source.log_id, str(message.id))
        claim = await self._claimed(key, digest)
        if claim.state is ClaimState.DONE and claim.reply is not None:
            return claim.reply, "repeat"
        if claim.state is ClaimState.CONFLICT:
            raise _conflict(key)
        if claim.state is ClaimState.HELD and key in log.handlings.left:
            left = log.handlings.left[key]
            if left is not None:
                return await self._finished(key, left), "repeat"
        elif claim.state is ClaimState.HELD and not registered.retry:
            raise _given_up()
        elif claim.state is ClaimState.INTERRUPTED:
            if not registered.retry:
                raise ProtocolError("interrupted", "the server stopped while it handled this")
            await log.reclaim_command(*key)
        log.handlings.leave(key, None)
        reply, result = await self._run(registered, source, message)
        return await self._finished(key, reply), result

    async def _claimed(self, key: tuple[str, str], digest: bytes) -> Claim:
        """Claim a message; while another node handles it, wait for that one's reply."""
        wait, waited = ELSEWHERE_SECONDS, 0.0
        while True:
            claim = await self.manager.log.claim_command(*key, digest)
            if claim.state is not ClaimState.ELSEWHERE:
                return claim
            if waited > self.config.timeout + ELSEWHERE_LIMIT_SECONDS:
                raise _given_up()
            await asyncio.sleep(wait)
            waited += wait
            wait = min(2 * wait, ELSEWHERE_LIMIT_SECONDS)

    async def _finished(self, key: tuple[str, str], reply: bytes) -> bytes:
        """Store a reply, or remember it for the repeat."""
        log = self.manager.log
        log.handlings.leave(key, reply)
        await log.finish_command(*key, reply)
        log.handlings.left.pop(key, None)
        return reply

    async def _run(
        self, registered: _Registered, source: Source, message: ClientMessage
    ) -> tuple[bytes, str]:
        emitter = self.emitter(source, message.thread_id)
        if message.type == EventType.USER_MESSAGE:
            emitter.in_reply_to = await self._publish_question(emitter, source, message)
        taken = Message(
            id=str(message.id),
            type=message.type,
            thread_id=message.thread_id,
            data=message.data,
            identity=source.identity,
        )
        work = self._started(registered, taken, emitter)
        # From here on it was started: at most once.
        self.manager.log.handlings.left.pop((source.log_id, taken.id), None)
        error = await self._ended(work, taken)
        if error is None:
            return _ack(work.result()), "ok"
        if isinstance(error, ProtocolError):
            return _error(error.code, error.message), error.code
        self.logger.error(
            "the handler of %s failed for message %s of %s",
            message.type, message.id, source.log_id, exc_info=error,
        )  # fmt: skip
        return _error("handler_failed", "the message could not be handled"), "handler_failed"

    def emitter(self, source: Source, thread_id: str | None) -> UserWebSocketEmitter:
        """Return an emitter for whoever sent a message, in its thread."""
        context = UserWebSocketContext(
            user_id=source.identity.user_id,
            log_id=source.log_id,
            thread_id=thread_id,
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
        self, emitter: UserWebSocketEmitter, source: Source, message: ClientMessage
    ) -> str:
        """Show the message to every tab; return its ``message_id``."""
        asked = UserMessage(
            message_id=f"msg_{message.id}",
            content=_content_of(message),
            client_message_id=source.client_message_id or str(message.id),
        )
        try:
            await emitter.user_message(asked, idempotency_key=f"command:{message.id}")
        except EventTooLarge as error:
            raise ProtocolError("too_large", str(error)) from None
        return asked.message_id

    # Calling handlers

    def _started(
        self, registered: _Registered, message: Message, emitter: UserWebSocketEmitter
    ) -> asyncio.Future[Any]:
        work: asyncio.Future[Any]
        if registered.is_async:
            work = asyncio.ensure_future(_awaited(registered.handler, message, emitter))
        else:
            work = self._in_thread(registered.handler, message, emitter)
        self._tasks.add(work)
        work.add_done_callback(self._done)
        return work

    async def _ended(self, work: asyncio.Future[Any], message: Message) -> BaseException | None:
        """Wait for a handler; return what it raised."""
        try:
            await asyncio.wait([work], timeout=self.config.timeout)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if not work.done():
            work.cancel()
            self.logger.error("message %s of type %s hangs", message.id, message.type)
            return ProtocolError("handler_timeout", f"not handled within {self.config.timeout:g} s")
        return asyncio.CancelledError() if work.cancelled() else work.exception()

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Looked at, so that a late failure of a hung handler is not reported twice.
            task.exception()

    def _in_thread(
        self, handler: Handler, message: Message, emitter: UserWebSocketEmitter
    ) -> asyncio.Future[Any]:
        user_id = message.identity.user_id
        if (
            self._sync_running[user_id] >= self.config.threads_per_user
            or self.running_sync >= self.config.threads
        ):
            raise ProtocolError("overloaded", "too many messages are being handled; try again")
        # A hung handler keeps its slot until its thread returns.
        future = call_in_thread(
            lambda: handler(message, emitter),
            name=f"catenary handler of {message.type}",
            on_end=lambda: self._released(user_id),
        )
        self._sync_running[user_id] += 1
        return future

    def _released(self, user_id: str) -> None:
        self._sync_running[user_id] -= 1
        if not self._sync_running[user_id]:
            del self._sync_running[user_id]


def _digest(message: ClientMessage) -> bytes:
    content = encode([message.type, message.thread_id, message.data])
    return hashlib.blake2b(content, digest_size=16).digest()


async def _awaited(
    handler: Callable[[Message, UserWebSocketEmitter], Awaitable[Any]],
    message: Message,
    emitter: UserWebSocketEmitter,
) -> Any:
    return await handler(message, emitter)


def _content_of(message: ClientMessage) -> Any:
    """Return what a question says; of data in an application's own shape, all."""
    data = message.data
    return data.get("content", data) if isinstance(data, dict) else data


def _conflict(key: tuple[str, str]) -> ProtocolError:
    return ProtocolError("id_conflict", f"id {key[1]!r} was used for other content")


def _given_up() -> ProtocolError:
    return ProtocolError("interrupted", "its handling was given up")


def _ack(reply: Any) -> bytes:
    return encode({"type": "ack"} if reply is None else {"type": "ack", "reply": reply})


def _error(code: str, text: str) -> bytes:
    return encode({"type": "error", "code": code, "message": text})

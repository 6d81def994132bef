"""The bridge's factory, and the one bridge of a process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from catenary.answering import ANSWER, continuing
from catenary.auth import AuthorizeLog, AuthorizeThread, authorize_log, authorize_thread
from catenary.context import UserWebSocketContext
from catenary.emitter import UserWebSocketEmitter
from catenary.errors import ConfigError, LogError, LogUnavailable, UsageError
from catenary.eventlog.base import EventLog
from catenary.eventlog.opening import open_log
from catenary.events import WebSocketEvent
from catenary.fold import QuestionState, RunState
from catenary.history import folded_runs, read_events, resume_point
from catenary.inbound import HandlerConfig, MessageHandlerService
from catenary.limits import Limits
from catenary.manager import WebSocketManager
from catenary.observe.monitoring import MONITORING, Monitoring
from catenary.observe.monitors import LiveMonitors
from catenary.position import Position
from catenary.questions import forget
from catenary.reporting import RunEndHandler, RunReporter
from catenary.supervisor import Supervisor
from catenary.surroundings import HERE, Surroundings
from catenary.voice import DATA_LIMIT_BYTES, Redactor

if TYPE_CHECKING:
    from catenary.serving.asgi import BridgeApp

logger = logging.getLogger("catenary")

RUN_DRAIN_TIMEOUT = 25.0

H = TypeVar("H", bound=Callable[..., Any])


class WebSocketBridgeFactory:
    """
    Makes emitters over one event log, and gives the bridge a server's life.

    It may be made and used before any loop runs. ``log`` is a URL
    (``memory://``, ``sqlite:///events.db``) or an :class:`EventLog`; factories
    of one process with the same URL share one log. ``async with factory:`` or
    ``start()`` and ``stop()`` give it heartbeats, upkeep and a drain.

    Args:
        redact: Replaces the redaction of secrets: ``redact(event) -> event``
            is asked for every event and returns it with other data.
        run_drain_timeout: How long open runs may go on in a drain, in seconds.
        monitoring: What the monitors of the started bridge look for; None turns them off.
        surroundings: Another source of chance and of the time that a turn takes, for simulations.

    Attributes:
        sweep_interval: Between two looks at what upkeep is due, in seconds.

    Raises:
        ConfigError: If the URL is none that this installation can open.
    """

    sweep_interval = 1.0

    def __init__(
        self,
        log: str | EventLog = "memory://",
        *,
        limits: Limits | None = None,
        redact: Redactor | None = None,
        authorize_thread: AuthorizeThread = authorize_thread,
        authorize_log: AuthorizeLog = authorize_log,
        handlers: HandlerConfig | None = None,
        run_drain_timeout: float = RUN_DRAIN_TIMEOUT,
        data_limit_bytes: int = DATA_LIMIT_BYTES,
        monitoring: Monitoring | None = MONITORING,
        surroundings: Surroundings = HERE,
    ) -> None:
        self.log = open_log(log) if isinstance(log, str) else log
        self.limits = limits or Limits()
        self.supervisor = Supervisor()
        self.manager = WebSocketManager(
            self.log,
            limits=self.limits,
            supervisor=self.supervisor,
            surroundings=surroundings,
        )
        self.service = MessageHandlerService(websocket_manager=self.manager, config=handlers)
        self.service.authorize_thread = authorize_thread
        self.service.redactor = redact
        self.authorize_log = authorize_log
        self.reporter = RunReporter(self.log, self.manager.counters)
        self._redactor = redact
        self._run_drain_timeout = run_drain_timeout
        self._data_limit_bytes = data_limit_bytes
        self.monitoring = monitoring
        self._tasks: list[asyncio.Task[None]] = []
        self._is_starting = False
        self._is_log_away = False
        self.failure: Exception | None = None
        """Why a server could not start this bridge and does not try again; see ``Lifespan``."""
        self.is_draining = False
        self.is_started = False

    # Emitting

    def get_user_emitter(self, context: UserWebSocketContext) -> UserWebSocketEmitter:
        """Return an emitter for a context. Cheap; needs no loop; thread-safe."""
        if not isinstance(context, UserWebSocketContext):
            raise UsageError(
                "get_user_emitter() takes a UserWebSocketContext, not "
                f"{type(context).__name__}; for a user id use create_user_emitter()"
            )
        return UserWebSocketEmitter(
            self.log,
            context,
            supervisor=self.supervisor,
            redactor=self._redactor,
            limit_bytes=self._data_limit_bytes,
        )

    async def create_user_emitter(
        self, user_id: str, thread_id: str | None = None, connection_id: str | None = None
    ) -> UserWebSocketEmitter:
        """Return an emitter for a user; each start without ``run_id=`` begins a new run."""
        context = UserWebSocketContext(
            user_id=user_id, thread_id=thread_id, connection_id=connection_id
        )
        return UserWebSocketEmitter(
            self.log,
            context,
            supervisor=self.supervisor,
            redactor=self._redactor,
            limit_bytes=self._data_limit_bytes,
        )

    # Handling

    def on_message(self, type: str, *, retry: bool = False) -> Callable[[H], H]:
        """Handle client messages of a type: ``handler(message, emitter) -> reply``."""

        def register(handler: H) -> H:
            self.service.register(type, handler, retry=retry)
            return handler

        return register

    def on_answer(self, handler: H) -> H:
        """
        Go on when what a run asked is answered after it ended: ``handler(answer, emitter)``.

        It starts a run with ``emitter.start_run(…)``, which continues the one
        that asked (``continues_run_id``). It gets a :class:`~catenary.answering.Answer`.
        It is called once, or again if its process dies meanwhile, so give the
        run an id made of ``answer.run_id`` where twice would be harmful.
        """
        self.service.register(ANSWER, continuing(handler), retry=True)
        return handler

    def on_run_end(self, handler: RunEndHandler) -> RunEndHandler:
        """Give the folded state of every ended run to ``handler``, at least once."""
        self.reporter.handlers.append(handler)
        return handler

    # Reading and keeping

    def events(
        self,
        user_id: str,
        *,
        after: Position | str = "start",
        thread_id: str | None = None,
        follow: bool = False,
    ) -> AsyncIterator[WebSocketEvent]:
        """
        Yield a user's events after a place; with ``follow``, as they come.

        Raises:
            PositionLost: Where events are missing; go on ``after=error.resumes_at``.
        """
        return read_events(self.log, user_id, after=str(after), thread_id=thread_id, follow=follow)

    async def runs(self, user_id: str, *, thread_id: str | None = None) -> list[RunState]:
        """Return a user's runs, folded from their events, oldest first."""
        return await folded_runs(self.log, user_id, thread_id)

    async def resume_point(self, user_id: str) -> Position:
        """
        Return the place just before the oldest open run, else the head.

        Read it before your own database and hand both to the page: nothing
        falls between.
        """
        return await resume_point(self.log, user_id)

    async def questions(self, user_id: str, *, thread_id: str | None = None) -> list[QuestionState]:
        """Return what a user was asked and has not answered, oldest first."""
        runs = await folded_runs(self.log, user_id, thread_id)
        return [asked for run in runs for asked in run.pending]

    async def erase(self, user_id: str, thread_id: str | None = None) -> int:
        """Erase what the log holds of a user, or of one thread; returns how many events."""
        for run in await folded_runs(self.log, user_id, thread_id):
            await forget(self.log, user_id, [asked.request_id for asked in run.questions])
        return await self.log.erase(user_id, thread_id)

    # Life

    async def start(self) -> None:
        """
        Open the log and begin heartbeats, upkeep and reports. Idempotent.

        Raises:
            LogUnavailable: If the log cannot be opened.
        """
        if self.is_started or self._is_starting:
            return
        self._is_starting = True
        # Not after the log has opened: a drain meanwhile holds.
        self.is_draining = self.supervisor.is_draining = False
        try:
            await self.log.start()
        except LogUnavailable:
            self._is_log_away = True
            raise
        finally:
            self._is_starting = False
        self._is_log_away = False
        self.is_started = True
        self.reporter.join()
        works = {
            "heartbeats": self.manager.keep_time(),
            "upkeep": self._sweep(),
            "reports": self.reporter.work(),
        }
        if self.monitoring is not None:
            works["monitors"] = LiveMonitors(self.log, self.manager, self.monitoring).work()
        self._tasks = [
            asyncio.create_task(work, name=f"catenary {name}") for name, work in works.items()
        ]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.sweep_interval)
            try:
                await self.log.sweep()
            except LogError as error:
                logger.warning("the upkeep of the log failed: %s", error)
            except Exception:
                logger.exception("the upkeep of the log failed; it is tried again")

    async def drain(self, timeout: float | None = None) -> None:
        """
        Leave in order: not ready, sockets closed with ``closing`` and 1012, runs given their time.

        Runs that are open after ``timeout`` seconds (``run_drain_timeout``)
        end with ``agent_error`` code ``shutdown``. Nothing accepted is lost.
        """
        if not self.is_draining:
            self.is_draining = True
            logger.info(
                "draining: %d connections, %d runs",
                self.manager.connection_count,
                self.supervisor.running,
            )
            await self.manager.say_closing("draining", within=2.0)
        await self.supervisor.drain(self._run_drain_timeout if timeout is None else timeout)

    async def stop(self, timeout: float | None = None) -> None:
        """Drain, commit what was accepted, and close the log. Idempotent."""
        if not self.is_started:
            return
        await self.drain(timeout)
        self.is_started = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reporter.leave()
        await self.log.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def problem(self) -> str | None:
        """Return why this bridge is not ready to serve; None if it is."""
        if self.is_draining:
            return "draining"
        if self.failure is not None:
            return "it cannot start, its log says why"
        if not self.is_started:
            return "the event log is not there yet" if self._is_log_away else "starting"
        return self.log.problem()

    # Serving

    def asgi_app(self, **options: Any) -> BridgeApp:
        """Return the ASGI application of this bridge; see :class:`catenary.serving.asgi.BridgeApp`."""
        from catenary.serving.asgi import BridgeApp  # noqa: PLC0415 - only servers have starlette

        return BridgeApp(self, **options)


_lock = threading.Lock()
_factory: WebSocketBridgeFactory | None = None


def get_websocket_bridge_factory(**options: Any) -> WebSocketBridgeFactory:
    """
    Return the one factory of this process; ``options`` make it, the first time.

    Raises:
        ConfigError: If it exists already and ``options`` are given.
    """
    global _factory
    with _lock:
        if _factory is None:
            _factory = WebSocketBridgeFactory(**options)
        elif options:
            raise ConfigError(
                "the bridge of this process exists already; give its options at the first call"
            )
        return _factory


def get_websocket_manager() -> WebSocketManager:
    """Return the one manager of this process: that of its factory."""
    return get_websocket_bridge_factory().manager


def forget_websocket_bridge_factory() -> None:
    """Let the next call make another factory for this process; for tests."""
    global _factory
    with _lock:
        _factory = None

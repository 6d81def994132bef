"""Emitters: one agent's way to one user."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from catenary.context import UserWebSocketContext, new_id
from catenary.errors import UsageError
from catenary.eventlog.base import EventLog
from catenary.eventlog.model import CancelOutcome
from catenary.eventlog.receipt import settled
from catenary.position import Position
from catenary.runs import Run
from catenary.verbs import Verbs
from catenary.voice import DATA_LIMIT_BYTES, Redactor

if TYPE_CHECKING:
    from catenary.supervisor import RunHandle, Supervisor


class UserWebSocketEmitter(Verbs):
    """
    Emits events for one user, and starts runs.

    The verbs are those of :class:`catenary.verbs.Verbs`: thread-safe, without
    a loop, never blocking.
    """

    def __init__(
        self,
        log: EventLog,
        context: UserWebSocketContext,
        *,
        supervisor: Supervisor,
        redactor: Redactor | None = None,
        limit_bytes: int = DATA_LIMIT_BYTES,
    ) -> None:
        super().__init__(log, context, redactor=redactor, limit_bytes=limit_bytes)
        self._supervisor = supervisor

    def run(
        self,
        *,
        agent_name: str | None = None,
        task: Any = None,
        run_id: str | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        flush_timeout: float = 30.0,
        takeover: bool = False,
    ) -> Run:
        """
        Return a run as a context manager, for ``async with`` and for ``with``.

        It always ends: completed, failed, cancelled, or closed by the bridge
        when its process dies. Leaving it waits up to ``flush_timeout`` seconds
        for its receipts. ``timeout`` and ``idle_timeout`` (seconds; the latter
        since its last event) end a run that hangs. ``takeover=True`` continues a
        run that is open, without a new start; one that has ended is continued
        by a new run that names it in ``continues_run_id``.
        """
        chosen = run_id or (new_id("run") if self._is_started else self._run_id)
        self._is_started = True
        return Run(
            self,
            run_id=chosen,
            agent_name=agent_name,
            task=task,
            timeout=timeout,
            idle_timeout=idle_timeout,
            flush_timeout=flush_timeout,
            takeover=takeover,
        )

    def start_run(
        self,
        agent: Callable[..., Coroutine[Any, Any, Any]] | Callable[..., Any],
        *args: Any,
        agent_name: str | None = None,
        run_id: str | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
    ) -> RunHandle:
        """
        Run ``agent(run, *args)`` beside the caller, supervised.

        A coroutine function runs as a task, a plain function in a thread. It is
        kept alive, takes part in a drain, and can be cancelled. What it returns
        becomes the run's result, unless it set one.

        Raises:
            UsageError: Without a running loop, or if ``agent`` is not callable.
            LogUnavailable: While the bridge drains: no new runs start here.
        """
        run = self.run(
            agent_name=agent_name,
            run_id=run_id or new_id("run"),
            timeout=timeout,
            idle_timeout=idle_timeout,
        )
        return self._supervisor.start(run, agent, args)

    def run_opened(self, run: Run) -> None:
        """Take note that a run of this emitter has begun: a drain gives it its time."""
        self._supervisor.note(run)

    async def cancel_run(self, run_id: str, *, reason: str | None = None) -> CancelOutcome:
        """Ask for a run of this user to be cancelled, wherever it lives; stored when this returns."""
        return await self.log.request_cancel(self.stream.log_id, run_id, reason=reason)

    async def seen(self, position: Position, *, timeout: float | None = None) -> bool:
        """Wait until a client of the user has acknowledged ``position``; False after ``timeout``."""
        if not isinstance(position, Position):
            raise UsageError("seen() takes a Position, such as `await receipt` gives")
        return await self.log.wait_seen(self.stream.log_id, position, timeout=timeout)

    async def flush(self, timeout: float | None = None) -> None:
        """
        Wait until everything emitted here so far is in the log, or refused.

        Raises:
            TimeoutError: After ``timeout`` seconds.
        """
        if self._last is not None:
            await settled((self._last,), timeout)

"""Runs: one piece of an agent's work, which always ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from catenary.context import new_id
from catenary.current import Token, enter, leave
from catenary.errors import (
    CatenaryError,
    LifecycleError,
    LogError,
    RunCancelled,
    RunClosed,
    RunFailed,
    UsageError,
)
from catenary.eventlog.closing import producer_lost
from catenary.eventlog.receipt import Notice, Receipt
from catenary.events import AgentCompleted
from catenary.fold import RunState
from catenary.interrupt import Cause, Interrupt, TaskInterrupt, ThreadInterrupt
from catenary.run_verbs import RunVerbs
from catenary.verbs import Verbs

logger = logging.getLogger("catenary.runs")


class Run(RunVerbs):
    """
    A run as a context manager, for ``async with`` and, in threads, ``with``.

    Entering emits ``agent_started``. Leaving emits exactly one end:
    ``agent_completed``; ``agent_cancelled`` when the run or its task was
    cancelled; ``agent_error`` on an exception or a timeout; and waits for its
    receipts. A run that is collected while open is closed as
    ``producer_lost``. The methods may be called from any thread.
    """

    def __init__(
        self,
        verbs: Verbs,
        *,
        run_id: str,
        agent_name: str | None = None,
        task: Any = None,
        parent_run_id: str | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        flush_timeout: float = 30.0,
        takeover: bool = False,
    ) -> None:
        super().__init__(verbs, run_id, agent_name=agent_name, flush_timeout=flush_timeout)
        self._task = task
        self._parent_run_id = parent_run_id
        self._timeout = timeout
        self._idle_timeout = idle_timeout
        self._takeover = takeover
        self._token: Token | None = None
        self.left = Receipt()
        """Settled when the code inside has left."""

    def __repr__(self) -> str:
        return f"<Run {self.run_id} of {self.emitter.user_id}>"

    # Opening

    def announce(self) -> None:
        """Emit ``agent_started``, before the run is entered. Raises as the verb does."""
        log, stream = self.emitter.log, self.emitter.stream
        held = stream.runs.get(self.run_id)
        is_held = held is not None and held.is_open
        if self._takeover and (is_held or log.take_over(stream, self.run_id)):
            self._held = stream.runs[self.run_id]
        else:
            continues = None
            if self._takeover and log.knows_run(stream, self.run_id):
                continues, self.run_id = self.run_id, new_id("run")
            self.emitter.agent_started(
                self.agent_name,
                self._task,
                run_id=self.run_id,
                parent_run_id=self._parent_run_id,
                continues_run_id=continues,
            )
            self._held = stream.runs[self.run_id]
        self._held.owner = id(self)
        self.emitter.run_opened(self)

    def _open(self) -> None:
        if self._held is None:
            self.announce()
        elif not self._held.is_open:
            raise RunClosed(self.run_id, self._held.grammar.closed_because)
        self._token = enter(self)

    def _watch(self, kind: type[Interrupt]) -> None:
        held = self.held
        interrupt = self._interrupt = kind(
            self.emitter, held, timeout=self._timeout, idle_timeout=self._idle_timeout
        )
        held.on_cancel.append(interrupt.cancel)
        parent = self.emitter.stream.runs.get(self._parent_run_id or "")
        if parent is not None and parent.is_cancel_requested:
            now_ms = self.emitter.log.now_ms()
            held.request_cancel(now_ms, parent.cancel_reason, parent.cancel_by)
        if held.is_cancel_requested:
            interrupt.cancel()

    async def __aenter__(self) -> Self:
        self._open()
        self._watch(TaskInterrupt)
        return self

    def __enter__(self) -> Self:
        if asyncio._get_running_loop() is not None:
            raise UsageError("a run on a loop's thread is entered with `async with`")
        self._open()
        self._watch(ThreadInterrupt)
        return self

    def begin(self) -> None:
        """
        Begin a run whose life is no block of code; whoever begins it owes it an :meth:`end`.

        It has no task and no timeouts: a cancel is raised by its next verb.
        """
        self.announce()
        self._watch(Interrupt)

    # Leaving

    def end(self, error: BaseException | None = None) -> Receipt | None:
        """
        End a run that :meth:`begin` began, as leaving a block with ``error`` would.

        Returns the receipt of the end; None if the run had ended before.
        """
        return None if self._is_leaving else self._leave(error)[1]

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        error = await self._keep_questions(error)
        interrupt, receipt, raised = self._leave(error)
        if isinstance(error, GeneratorExit):
            # The task is being collected: nothing may be awaited any more.
            return False
        if interrupt.absorb() and isinstance(error, asyncio.CancelledError):
            # Someone else cancels the task too: that goes on.
            raised = None
        if receipt is not None:
            with self._flushing(error or raised):
                async with asyncio.timeout(self._flush_timeout):
                    await receipt
        return self._conclude(error, raised)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None and self._suspension is not None:
            error = asyncio.run(self._keep_questions(error))
        _, receipt, raised = self._leave(error)
        if receipt is not None and not isinstance(error, GeneratorExit):
            with self._flushing(error or raised):
                receipt.result(self._flush_timeout)
        return self._conclude(error, raised)

    async def _keep_questions(self, error: BaseException | None) -> BaseException | None:
        """Let the log know what a suspension asks; without that the run fails."""
        if error is None and self._suspension is not None:
            try:
                await self._suspension.keep(self.emitter, self.run_id)
            except (LogError, asyncio.CancelledError) as problem:
                return problem
        return error

    @contextmanager
    def _flushing(self, error: BaseException | None) -> Iterator[None]:
        """What the block raised says more than what became of its events."""
        try:
            yield
        except (CatenaryError, TimeoutError) as problem:
            if error is None:
                raise
            logger.warning("the end of run %s is not in the log yet: %s", self.run_id, problem)

    def _leave(
        self, error: BaseException | None
    ) -> tuple[Interrupt, Receipt | None, BaseException | None]:
        assert self._interrupt is not None
        self._is_leaving = True
        interrupt = self._interrupt
        interrupt.stop()
        if self._token is not None:
            leave(self._token)
        try:
            receipt, raised = self._end(error, interrupt)
        except RunClosed as closed:
            receipt, raised = None, interrupt.error() or closed
        finally:
            self.held.on_cancel.remove(interrupt.cancel)
            Notice(self.left)()
        return interrupt, receipt, raised

    def _end(
        self, error: BaseException | None, interrupt: Interrupt
    ) -> tuple[Receipt, BaseException | None]:
        """Emit the end that fits how the block was left; return what to raise."""
        receipt = interrupt.end()
        if receipt is not None:
            is_ours = isinstance(error, asyncio.CancelledError | RunCancelled | TimeoutError)
            return receipt, interrupt.error() if is_ours else None
        if error is None:
            return self._complete(), None
        if isinstance(error, GeneratorExit):
            return self._fail(
                "producer_lost", "the run was dropped before it ended", retryable=True
            ), None
        if isinstance(error, asyncio.CancelledError | RunCancelled):
            return self.emitter.agent_cancelled("its task was cancelled", run_id=self.run_id), None
        if isinstance(error, RunFailed):
            return self._fail(error.code, str(error), retryable=error.retryable), None
        logger.error(
            "run %s of %s failed", self.run_id, self.emitter.user_id, exc_info=error,
            extra={"run_id": self.run_id, "user_id": self.emitter.user_id},
        )  # fmt: skip
        return self._fail("agent_failed", f"the agent failed: {type(error).__name__}"), None

    def _complete(self) -> Receipt:
        try:
            if self._suspension is not None:
                result = self.emitter._safe(self._result)
                end = AgentCompleted(result=result, outcome="suspended", usage=self._usage)
                return self._suspension.end(self.emitter, self.run_id, end)
            return self.emitter.agent_completed(self._result, usage=self._usage, run_id=self.run_id)
        except RunClosed:
            raise
        except Exception as problem:
            # Whatever is wrong with this end, the run needs one.
            code = "lifecycle" if isinstance(problem, LifecycleError) else "end_refused"
            self._fail(code, f"the agent ended with {type(problem).__name__}")
            raise

    def _fail(self, code: str, message: str, *, retryable: bool = False) -> Receipt:
        return self.emitter.agent_error(message, code=code, retryable=retryable, run_id=self.run_id)

    def _conclude(self, error: BaseException | None, raised: BaseException | None) -> bool:
        if raised is not None and (error is None or not isinstance(raised, RunClosed)):
            raise raised from None
        return False

    def __del__(self) -> None:
        held = getattr(self, "_held", None)
        if held is None or not held.is_open or held.owner != id(self):
            return
        log = self.emitter.log
        end = producer_lost(log.holder, held.last_at or log.now_ms())
        try:
            self._fail(end.code, end.message, retryable=True)
        except CatenaryError as problem:
            logger.error("run %s stays open: %s", self.run_id, problem)  # noqa: TRY400

    # Looking

    def child(
        self, *, agent_name: str | None = None, task: Any = None, run_id: str | None = None
    ) -> Run:
        """Return a run of a sub-agent; its events name this run as their parent."""
        self._check()
        return Run(
            self.emitter,
            run_id=run_id or new_id("run"),
            agent_name=agent_name,
            task=task,
            parent_run_id=self.run_id,
            flush_timeout=self._flush_timeout,
        )

    @property
    def thread_id(self) -> str | None:
        """The thread of this run."""
        return self.emitter.context.thread_id

    @property
    def is_open(self) -> bool:
        """Whether the run has begun and not ended."""
        return self._held is not None and self._held.is_open

    @property
    def state(self) -> RunState:
        """The run folded so far: status, text, tools. Includes what was just emitted."""
        return self.emitter.log.folded(self.emitter.stream, self.held)

    # Cancelling

    @property
    def cancelled(self) -> bool:
        """Whether someone asked for this run to be cancelled."""
        return self._held is not None and self._held.is_cancel_requested

    def raise_if_cancelled(self) -> None:
        """
        Raise if someone asked for this run to be cancelled.

        Raises:
            RunCancelled: If so.
        """
        if self.cancelled:
            raise RunCancelled(self.run_id, self.held.cancel_reason)

    def interrupt_with(self, cause: Cause) -> None:
        """
        Interrupt the run for a cause that is not a cancel, such as a shutdown.

        A task is cancelled; a thread's run is ended at once, for a thread cannot be stopped.
        """
        if self._interrupt is not None:
            self._interrupt.raise_cause(cause)
        if not isinstance(self._interrupt, TaskInterrupt):
            self.end_from_outside(cause)

    def end_from_outside(self, cause: Cause) -> None:
        """End the run for a cause, though its code goes on or did not begin."""
        held = self.held
        interrupt = self._interrupt or Interrupt(
            self.emitter, held, timeout=self._timeout, idle_timeout=self._idle_timeout
        )
        interrupt.cause = interrupt.cause or cause
        interrupt.end_from_outside()

    async def wait_cancelled(self) -> None:
        """Wait until someone asks for this run to be cancelled."""
        receipt = Receipt()
        notify: Callable[[], None] = Notice(receipt)
        self.held.on_cancel.append(notify)
        try:
            if not self.cancelled:
                await receipt
        finally:
            self.held.on_cancel.remove(notify)

"""The verbs: what agents say, as events in a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from catenary.context import UserWebSocketContext, new_id
from catenary.encoding import to_builtins
from catenary.errors import UsageError
from catenary.eventlog.base import EventLog
from catenary.eventlog.entry import Entry
from catenary.eventlog.receipt import Receipt
from catenary.events import (
    AgentCancelled,
    AgentCompleted,
    AgentError,
    AgentStarted,
    AgentThinking,
    EventType,
    ProgressUpdate,
    ToolCompleted,
    ToolExecuting,
    UserMessage,
)
from catenary.grammar import Step
from catenary.redaction import redact
from catenary.voice import (
    DATA_LIMIT_BYTES,
    Redactor,
    Voice,
    check_custom_type,
    with_key,
)
from catenary.voices import Voices

if TYPE_CHECKING:
    from catenary.runs import Run


class Verbs:
    """
    The event verbs of one user, for any of its runs.

    Every verb accepts its event or raises, at once, from any thread, on any
    loop or none; it never blocks and never drops. It returns a
    :class:`Receipt`: awaiting it waits until the event is in the log. Data are
    encoded at the call.

    Every verb raises ``LifecycleError`` if the grammar of the run forbids the
    event, ``RunClosed`` if the run has ended, ``EventTooLarge`` if its data are
    over the limit, and ``LogFull`` if the log cannot keep up.
    """

    def __init__(
        self,
        log: EventLog,
        context: UserWebSocketContext,
        *,
        redactor: Redactor | None = None,
        limit_bytes: int = DATA_LIMIT_BYTES,
    ) -> None:
        self.context = context
        self.log = log
        self.stream = log.stream(context.log_id or context.user_id)
        self._renews_run = context.renews_run
        self._redactor = redactor
        self._voices = Voices(
            context, self.stream, redactor=redactor, limit_bytes=limit_bytes, now_ms=log.now_ms
        )
        self._run_id: str = context.run_id or new_id("run")
        self._is_started = False
        self._last: Receipt | None = None
        self.in_reply_to: str | None = None
        """The ``message_id`` of the user's message that runs begun here answer."""
        self.continues_run_id: str | None = None
        """The run that runs begun here go on with."""

    @property
    def user_id(self) -> str:
        """The user that this emitter speaks to."""
        return self.context.user_id

    @property
    def run_id(self) -> str:
        """The run that plain verbs speak for."""
        return self._run_id

    def voice(self, run_id: str | None) -> Voice:
        """Return the voice of a run, or that outside any run."""
        return self._voices.of(run_id)

    def append(self, entry: Entry) -> Receipt:
        """Append what a voice said; raises as a verb."""
        receipt = self.log.append(self.stream, entry)
        self._last = receipt
        return receipt

    def append_all(self, entries: Sequence[Entry]) -> Receipt:
        """Append several events in one step, all or none; return the last one's receipt."""
        receipt = self.log.append_all(self.stream, entries)[-1]
        self._last = receipt
        return receipt

    def run_opened(self, run: Run) -> None:
        """Take note that a run of this emitter has begun."""

    # Verbs

    def agent_started(
        self,
        agent_name: str | None = None,
        task: Any = None,
        *,
        run_id: str | None = None,
        parent_run_id: str | None = None,
        continues_run_id: str | None = None,
        lease: float | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """
        Begin a run.

        Without ``run_id`` it is the context's; if the context was made without
        one, each further start gets a new id (see :attr:`run_id`). ``lease``
        (seconds) is for runs without a process, held over HTTP.

        Raises:
            UsageError: If ``lease`` is no positive number.
        """
        if lease is not None and not (_is_number(lease) and lease > 0):
            raise UsageError(f"lease is a positive number of seconds, not {lease!r:.60}")
        if run_id is None:
            if self._renews_run and (self._is_started or self._run_id in self.stream.runs):
                self._run_id = new_id("run")
            self._is_started = True
            run_id = self._run_id
        voice = self._voices.of(run_id, agent_name=agent_name, parent_run_id=parent_run_id)
        is_root = parent_run_id is None
        data = AgentStarted(
            task=self._safe(task),
            lease=lease,
            continues_run_id=continues_run_id or (self.continues_run_id if is_root else None),
            in_reply_to=self.in_reply_to if is_root else None,
        )
        return self.append(
            voice.event(EventType.AGENT_STARTED, data, step=Step.START, key=idempotency_key)
        )

    def agent_thinking(
        self,
        thinking: str,
        step: int | None = None,
        total_steps: int | None = None,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Say what the agent is thinking about."""
        data = AgentThinking(thinking=thinking, step=step, total_steps=total_steps)
        voice = self._voices.of(run_id or self._run_id)
        return self.append(
            voice.event(EventType.AGENT_THINKING, data, step=Step.WITHIN, key=idempotency_key)
        )

    def agent_delta(
        self,
        delta: str,
        *,
        message_id: str | None = None,
        part: str = "text",
        tool_call_id: str | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """
        Say the next piece of a message.

        ``part`` is ``text``, ``reasoning`` or ``tool_input``. Neighbouring
        pieces of one message and part may reach a late reader as one.
        """
        run_id = run_id or self._run_id
        voice = self._voices.known.get(run_id) or self._voices.of(run_id)
        receipt = self.log.append(
            self.stream, voice.delta(delta, message_id, part, tool_call_id, idempotency_key)
        )
        self._last = receipt
        return receipt

    def tool_executing(
        self,
        tool_name: str,
        tool_input: Any = None,
        *,
        tool_call_id: str | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Begin a tool call; without ``tool_call_id`` one is generated."""
        call = tool_call_id or new_id("call")
        data = ToolExecuting(
            tool_name=tool_name, tool_call_id=call, tool_input=self._safe(tool_input)
        )
        return self.append(
            self._voices.of(run_id or self._run_id).event(
                EventType.TOOL_EXECUTING,
                data,
                step=Step.TOOL_START,
                tool_call_id=call,
                tool_name=tool_name,
                key=idempotency_key,
            )
        )

    def tool_completed(
        self,
        tool_name: str,
        tool_output: Any = None,
        *,
        tool_call_id: str | None = None,
        success: bool = True,
        error: Any = None,
        duration_ms: float | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """
        End a tool call; without ``tool_call_id`` the latest open one of this name.

        Output over the limit is cut, and ``truncated`` says so.
        """
        run_id = run_id or self._run_id
        held = self.stream.runs.get(run_id)
        # A copy, made in one step: other threads begin and end tools meanwhile.
        open_tools = held.grammar.open_tools.copy() if held is not None else {}
        call = tool_call_id or next(
            (call for call, tool in reversed(open_tools.items()) if tool.name == tool_name), ""
        )
        asked = ToolCompleted(
            tool_name=tool_name,
            tool_call_id=tool_call_id or "",
            success=success,
            tool_output=self._safe(tool_output),
            error=self._safe(error),
            duration_ms=duration_ms,
        )
        began = open_tools.get(call)
        if duration_ms is None and began is not None:
            duration_ms = max(0, self.log.now_ms() - began.began_at)
        data = msgspec.structs.replace(asked, tool_call_id=call, duration_ms=duration_ms)
        entry = self._voices.of(run_id).tool_end(data)
        return self.append(with_key(entry, idempotency_key, asked))

    def agent_completed(
        self,
        result: Any = None,
        *,
        outcome: str = "success",
        usage: Any = None,
        duration_ms: float | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """End a run well. Its tool calls must have ended."""
        run_id = run_id or self._run_id
        asked = AgentCompleted(
            result=self._safe(result), outcome=outcome, usage=usage, duration_ms=duration_ms
        )
        receipt = self.append(with_key(self.completion(asked, run_id), idempotency_key, asked))
        self._voices.forget(run_id)
        return receipt

    def completion(self, asked: AgentCompleted, run_id: str) -> Entry:
        """Return the entry of a run's end, with how long it took."""
        held = self.stream.runs.get(run_id)
        took = asked.duration_ms
        if took is None and held is not None and held.started_at:
            took = max(0, self.log.now_ms() - held.started_at)
        data = msgspec.structs.replace(asked, duration_ms=took)
        return self.voice(run_id).event(EventType.AGENT_COMPLETED, data, step=Step.COMPLETE)

    def agent_error(
        self,
        message: str,
        *,
        code: str = "agent_failed",
        retryable: bool = False,
        run_id: str | None = None,
    ) -> Receipt:
        """End a run that failed; open tool calls are ended first, as failed."""
        end = AgentError(code=code, message=str(self._safe(message)), retryable=retryable)
        return self._end(run_id, end)

    def agent_cancelled(
        self,
        reason: str | None = None,
        *,
        by: str | None = None,
        run_id: str | None = None,
    ) -> Receipt:
        """End a run that was cancelled; open tool calls are ended first, as failed."""
        return self._end(run_id, AgentCancelled(reason=reason, by=by))

    def _end(self, run_id: str | None, end: AgentError | AgentCancelled) -> Receipt:
        run_id = run_id or self._run_id
        entries_for = self._voices.of(run_id).ending(end)
        receipt = self.log.end_run(self.stream, run_id, entries_for)
        self._last = receipt
        self._voices.forget(run_id)
        return receipt

    def progress_update(
        self,
        message: str | None = None,
        percentage: float | None = None,
        current_step: int | None = None,
        total_steps: int | None = None,
        *,
        key: str | None = "progress",
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Say how far the work is. Neighbours with one ``key`` may be shown by the latest."""
        data = ProgressUpdate(
            message=message,
            percentage=percentage,
            current_step=current_step,
            total_steps=total_steps,
        )
        return self._aside(EventType.PROGRESS_UPDATE, data, key, run_id, idempotency_key)

    def custom(
        self,
        type: str,
        data: Any = None,
        key: str | None = None,
        *,
        version: int | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """
        Emit an event of the application's own type, such as ``orders.updated``.

        Neighbours of one run with the same ``key`` may be shown by the latest.
        Data that are no object become ``{"value": data}``.
        """
        return self._aside(
            check_custom_type(type),
            {} if data is None else data,
            key,
            run_id,
            idempotency_key,
            version,
        )

    def user_message(self, message: UserMessage, *, idempotency_key: str | None = None) -> Receipt:
        """Show an accepted message of the user to every tab; it belongs to no run."""
        voice = self._voices.of(None)
        return self.append(voice.event(EventType.USER_MESSAGE, message, key=idempotency_key))

    def _aside(
        self,
        type: str,
        data: Any,
        key: str | None,
        run_id: str | None,
        idempotency_key: str | None,
        version: int | None = None,
    ) -> Receipt:
        about = run_id or (self._run_id if self._is_started else None)
        merge = f"key\0{about}\0{type}\0{key}" if key is not None else None
        return self.append(
            self._voices.of(about).event(
                type, data, merge=merge, key=idempotency_key, version=version
            )
        )

    def _safe(self, value: Any) -> Any:
        if value is None or self._redactor is not None:
            return value
        return redact(to_builtins(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

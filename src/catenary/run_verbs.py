"""What the code inside a run says, and what it asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from catenary.asking import Suspension, ask
from catenary.context import new_id
from catenary.encoding import encode, to_builtins
from catenary.errors import EventTooLarge, UsageError
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.signal import Signal
from catenary.eventlog.stream import HeldRun
from catenary.events import InputRequested
from catenary.interrupt import Interrupt
from catenary.questions import request as request_of
from catenary.tool import Tool
from catenary.verbs import Verbs
from catenary.voice import DATA_LIMIT_BYTES


class RunVerbs:
    """The verbs of one run. The methods may be called from any thread."""

    def __init__(
        self, verbs: Verbs, run_id: str, *, agent_name: str | None, flush_timeout: float
    ) -> None:
        self.run_id = run_id
        self.agent_name = agent_name
        self.emitter = verbs
        self._flush_timeout = flush_timeout
        self._held: HeldRun | None = None
        self._interrupt: Interrupt | None = None
        self._suspension: Suspension | None = None
        self._result: Any = None
        self._usage: Any = None
        self._has_result = False
        self._is_leaving = False

    @property
    def held(self) -> HeldRun:
        """What the process knows of this run."""
        if self._held is None:
            raise UsageError("the run has not begun: use it with `async with` or `with`")
        return self._held

    def _check(self) -> None:
        if self._interrupt is not None and not self._is_leaving:
            self._interrupt.check()

    def thinking(
        self, thinking: str, step: int | None = None, total_steps: int | None = None
    ) -> Receipt:
        """Say what the agent is thinking about."""
        self._check()
        return self.emitter.agent_thinking(thinking, step, total_steps, run_id=self.run_id)

    def delta(
        self,
        text: str,
        *,
        message_id: str | None = None,
        part: str = "text",
        tool_call_id: str | None = None,
    ) -> Receipt:
        """Say the next piece of a message."""
        self._check()
        return self.emitter.agent_delta(
            text, message_id=message_id, part=part, tool_call_id=tool_call_id, run_id=self.run_id
        )

    def progress(
        self,
        message: str | None = None,
        percentage: float | None = None,
        current_step: int | None = None,
        total_steps: int | None = None,
    ) -> Receipt:
        """Say how far the work is."""
        self._check()
        return self.emitter.progress_update(
            message, percentage, current_step, total_steps, run_id=self.run_id
        )

    def custom(self, type: str, data: Any = None, key: str | None = None) -> Receipt:
        """Emit an event of the application's own type, within this run."""
        self._check()
        return self.emitter.custom(type, data, key, run_id=self.run_id)

    def tool(
        self, tool_name: str, tool_input: Any = None, *, tool_call_id: str | None = None
    ) -> Tool:
        """Return a tool call as a context manager; it always ends."""
        self._check()
        call = tool_call_id or new_id("call")
        return Tool(self.emitter, self.run_id, tool_name, tool_input, call, ask=self.ask)

    # Asking

    async def ask(
        self,
        question: str | None = None,
        *,
        schema: Mapping[str, Any] | None = None,
        kind: str = "question",
        tool_call_id: str | None = None,
        tool_name: str | None = None,
        tool_input: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """
        Ask the user, and wait for the answer, on whatever connection or node it comes.

        ``schema`` is a JSON Schema from which a page makes its form; answers
        are not checked against it. An ``approval`` is answered with true or
        false, or ``{"approved": …, "reason": …}``; ``tool_name`` and
        ``tool_input`` tell what it is for, when the call has not begun. Time
        spent here does not count for the run's timeouts. In a thread:
        ``asyncio.run(run.ask(…))``.

        Raises:
            TimeoutError: If nobody answered within ``timeout`` seconds (7 days if None).
            RunCancelled: In a thread, if the run is cancelled meanwhile.
            UsageError: If the kind is none.
        """
        self._check()
        interrupt = self._interrupt
        if interrupt is None:
            raise UsageError("ask() waits inside a run: use it within `async with` or `with`")
        request = request_of(
            question,
            schema=schema,
            kind=kind,
            tool_call_id=tool_call_id,
            tool_name=tool_name,
            tool_input=tool_input,
            timeout=timeout,
        )
        signal = Signal()
        interrupt.on_cause.append(signal.wake)
        try:
            with interrupt.waiting():
                return await ask(
                    self.emitter, self.run_id, request, signal=signal, check=self._check
                )
        finally:
            interrupt.on_cause.remove(signal.wake)

    def suspend(
        self, requests: Sequence[InputRequested] | InputRequested, *, state: Any = None
    ) -> list[str]:
        """
        End the run, as it is left, with questions; return their ids.

        Its end is ``agent_completed`` with the outcome ``suspended``. Once all
        are answered, ``@factory.on_answer`` is called, on whatever node. Make
        the requests with :func:`catenary.request`. ``state`` is kept with them
        and handed over then: JSON of at most 256 KiB, such as the messages so far.

        Raises:
            UsageError: Without a request.
            EventTooLarge: If the state is over the limit.
        """
        self._check()
        asked = [requests] if isinstance(requests, InputRequested) else list(requests)
        if not asked:
            raise UsageError("suspend() needs at least one request; see catenary.request()")
        asked = [msgspec.structs.replace(one, suspends=True) for one in asked]
        kept = to_builtins(state)
        size = len(encode(kept))
        if size > DATA_LIMIT_BYTES:
            raise EventTooLarge("the state of a suspended run", size, DATA_LIMIT_BYTES)
        self._suspension = Suspension(asked, kept)
        return [one.request_id for one in asked]

    def set_result(self, result: Any) -> None:
        """Set what ``agent_completed`` will carry."""
        self._result = result
        self._has_result = True

    @property
    def has_result(self) -> bool:
        """Whether a result was set."""
        return self._has_result

    def set_usage(self, usage: Any) -> None:
        """Set the usage that ``agent_completed`` will carry, such as token counts."""
        self._usage = usage

"""The voices of one emitter: one for each run that it spoke in lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from catenary.context import UserWebSocketContext, check_id
from catenary.envelope import Envelope
from catenary.eventlog.stream import Stream
from catenary.voice import Redactor, Voice

VOICES_REMEMBERED = 256


class Voices:
    """Voices by run id; None is the voice outside any run. Used from any thread."""

    __slots__ = ("_context", "_limit_bytes", "_now_ms", "_redactor", "_stream", "known")

    def __init__(
        self,
        context: UserWebSocketContext,
        stream: Stream,
        *,
        redactor: Redactor | None,
        limit_bytes: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._context = context
        self._stream = stream
        self._redactor = redactor
        self._limit_bytes = limit_bytes
        self._now_ms = now_ms
        self.known: OrderedDict[str | None, Voice] = OrderedDict()

    def of(
        self,
        run_id: str | None,
        *,
        agent_name: str | None = None,
        parent_run_id: str | None = None,
    ) -> Voice:
        """
        Return the voice of a run; its names are those of its start.

        Raises:
            UsageError: If a name is none that a log can hold.
        """
        voice = self.known.get(run_id)
        if voice is None or agent_name is not None or parent_run_id is not None:
            voice = self._made(run_id, agent_name, parent_run_id)
            self.known[run_id] = voice
            if len(self.known) > VOICES_REMEMBERED:
                self.known.popitem(last=False)
        return voice

    def _made(self, run_id: str | None, agent_name: str | None, parent_run_id: str | None) -> Voice:
        names = {"run_id": run_id, "agent_name": agent_name, "parent_run_id": parent_run_id}
        for name, value in names.items():
            if value is not None:
                check_id(name, value)
        held = self._stream.runs.get(run_id) if run_id is not None else None
        if held is not None:
            agent_name = agent_name or held.agent_name
            parent_run_id = parent_run_id or held.parent_run_id
        envelope = Envelope(
            user_id=self._context.user_id,
            thread_id=self._context.thread_id,
            run_id=run_id,
            agent_name=agent_name,
            parent_run_id=parent_run_id,
        )
        return Voice(
            envelope,
            redactor=self._redactor,
            limit_bytes=self._limit_bytes,
            now_ms=self._now_ms,
        )

    def forget(self, run_id: str) -> None:
        """Forget the voice of a run that has ended."""
        self.known.pop(run_id, None)

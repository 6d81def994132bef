"""Tool calls as context managers, so that every start has its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from catenary.errors import CatenaryError, RunFailed
from catenary.events import InputKind
from catenary.questions import is_approved
from catenary.verbs import Verbs

logger = logging.getLogger("catenary.runs")


class Tool:
    """
    One tool call of a run, for ``async with`` and ``with``.

    Entering emits ``tool_executing``; leaving emits ``tool_completed``, with
    ``success=False`` if the block raised. The exception goes on.
    """

    def __init__(
        self,
        verbs: Verbs,
        run_id: str,
        tool_name: str,
        tool_input: Any,
        tool_call_id: str,
        *,
        ask: Callable[..., Awaitable[Any]],
    ) -> None:
        self.tool_name = tool_name
        self.tool_call_id = tool_call_id
        self._verbs = verbs
        self._run_id = run_id
        self._input = tool_input
        self._result: Any = None
        self._error: Any = None
        self._began = 0
        self._ask = ask

    def set_result(self, result: Any) -> None:
        """Set what the tool returned."""
        self._result = result

    def set_error(self, error: Any) -> None:
        """Say that the tool failed without raising."""
        self._error = error

    async def approved(self, question: str | None = None, *, timeout: float | None = None) -> bool:
        """
        Ask the user whether this call may go on; see :meth:`catenary.Run.ask`.

        Raises:
            TimeoutError: If nobody answered within ``timeout`` seconds.
        """
        answer = await self._ask(
            question, kind=InputKind.APPROVAL, tool_call_id=self.tool_call_id, timeout=timeout
        )
        return is_approved(answer)

    def __enter__(self) -> Self:
        self._verbs.tool_executing(
            self.tool_name, self._input, tool_call_id=self.tool_call_id, run_id=self._run_id
        )
        self._began = self._verbs.log.now_ms()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._error = str(error) if isinstance(error, RunFailed) else type(error).__name__
            logger.info("tool %s of run %s raised", self.tool_name, self._run_id, exc_info=error)
        try:
            self._verbs.tool_completed(
                self.tool_name,
                self._result,
                tool_call_id=self.tool_call_id,
                success=self._error is None,
                error=self._error,
                duration_ms=max(0, self._verbs.log.now_ms() - self._began),
                run_id=self._run_id,
            )
        except CatenaryError as problem:
            # What the block raised says more than why its end was refused.
            if error is None:
                raise
            logger.info("tool %s of run %s: %s", self.tool_name, self._run_id, problem)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

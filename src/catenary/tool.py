"""Tool calls as context managers, so that every start has its end."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any, Self

from catenary.errors import CatenaryError, RunFailed
from catenary.verbs import Verbs

logger = logging.getLogger("catenary.runs")


class Tool:
    """
    One tool call of a run, for ``async with`` and ``with``.

    Entering emits ``tool_executing``; leaving emits ``tool_completed``, with
    ``success=False`` if the block raised. The exception goes on.
    """

    def __init__(
        self, verbs: Verbs, run_id: str, tool_name: str, tool_input: Any, tool_call_id: str
    ) -> None:
        self.tool_name = tool_name
        self.tool_call_id = tool_call_id
        self._verbs = verbs
        self._run_id = run_id
        self._input = tool_input
        self._result: Any = None
        self._error: Any = None
        self._began = 0

    def set_result(self, result: Any) -> None:
        """Set what the tool returned."""
        self._result = result

    def set_error(self, error: Any) -> None:
        """Say that the tool failed without raising."""
        self._error = error

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

"""
The grammar of a run: which event may follow which.

Started first and once; one end, last; tool calls in pairs. One
:class:`RunGrammar` holds the state of one run for every emitter of the
process, and is asked within the log's intake step, so a reader never sees a
broken run. Pure: no I/O, no clock.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from catenary.errors import LifecycleError, RunClosed


class Step(enum.Enum):
    """What an event does to its run."""

    START = enum.auto()
    WITHIN = enum.auto()
    ASIDE = enum.auto()
    TOOL_START = enum.auto()
    TOOL_END = enum.auto()
    COMPLETE = enum.auto()
    FAIL = enum.auto()
    CANCEL = enum.auto()


RUN_END_STEPS = frozenset({Step.COMPLETE, Step.FAIL, Step.CANCEL})


class OpenTool(NamedTuple):
    """A tool call at work: the tool's name, and when it began (ms since 1970)."""

    name: str
    began_at: int


class RunStage(enum.Enum):
    """How far a run is."""

    NEW = enum.auto()
    OPEN = enum.auto()
    ENDED = enum.auto()


class RunGrammar:
    """The state that decides what may come next in one run."""

    __slots__ = ("closed_because", "open_tools", "run_id", "stage")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.stage = RunStage.NEW
        self.open_tools: dict[str, OpenTool] = {}
        """The tools at work, by ``tool_call_id``."""
        self.closed_because = "it has ended"

    def admit(self, step: Step, tool_call_id: str = "", tool: OpenTool | None = None) -> None:
        """
        Take the next event, or refuse it and stay as before.

        Raises:
            LifecycleError: If the event cannot stand here.
            RunClosed: If the run has ended.
        """
        if self.stage is RunStage.OPEN:
            if step is Step.WITHIN or step is Step.ASIDE:
                return
            self._admit_open(step, tool_call_id, tool or OpenTool("", 0))
        elif self.stage is RunStage.ENDED:
            raise RunClosed(self.run_id, self.closed_because)
        elif step is Step.START:
            self.stage = RunStage.OPEN
        elif step is not Step.ASIDE:
            raise LifecycleError(self.run_id, "it has not started: emit agent_started first")

    def _admit_open(self, step: Step, tool_call_id: str, tool: OpenTool) -> None:
        if step is Step.START:
            raise LifecycleError(self.run_id, "it has started already")
        if step is Step.TOOL_START:
            self._open_tool(tool_call_id, tool)
        elif step is Step.TOOL_END:
            if self.open_tools.pop(tool_call_id, None) is None:
                raise LifecycleError(self.run_id, f"no tool call {tool_call_id!r} is open")
        elif step in RUN_END_STEPS:
            self._end(step)

    def _open_tool(self, tool_call_id: str, tool: OpenTool) -> None:
        if tool_call_id in self.open_tools:
            raise LifecycleError(self.run_id, f"tool call {tool_call_id!r} is open already")
        self.open_tools[tool_call_id] = tool

    def _end(self, step: Step) -> None:
        if self.open_tools:
            names = ", ".join(f"{tool.name} ({call})" for call, tool in self.open_tools.items())
            hint = " first: emit tool_completed" if step is Step.COMPLETE else ""
            raise LifecycleError(self.run_id, f"tool calls are open: {names}. Complete them{hint}")
        self.stage = RunStage.ENDED

    def close(self, because: str) -> None:
        """Refuse all that follows: the run has ended elsewhere, or was lost."""
        self.stage = RunStage.ENDED
        self.closed_because = because

    def snapshot(self) -> tuple[RunStage, dict[str, OpenTool]]:
        """Return what :meth:`restore` needs to undo what follows."""
        return self.stage, dict(self.open_tools)

    def restore(self, snapshot: tuple[RunStage, dict[str, OpenTool]]) -> None:
        """Undo all since the snapshot."""
        self.stage, self.open_tools = snapshot

"""
Relays: what an agent framework tells of its run, said as the verbs of a run.

Frameworks tell it in streams and callbacks of many kinds. The integrations
read those, and a :class:`Relay` does what all of them need: it says each thing
once, under the framework's own ids, not faster than the log takes it, and
leaves nothing open.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import logging
import threading
from collections.abc import AsyncIterable, Collection
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

import msgspec

from catenary.context import ID_LIMIT
from catenary.errors import (
    EventTooLarge,
    LifecycleError,
    LogError,
    RunCancelled,
    RunClosed,
    RunFailed,
    UsageError,
)
from catenary.integrations.pace import Pace
from catenary.integrations.usage import Usage
from catenary.interrupt import Cause
from catenary.redaction import JsonRedactor
from catenary.runs import Run

logger = logging.getLogger("catenary.integrations")

PIECE_CHARACTERS = 16 * 1024
"""How much of a text is one event, where the framework brings it whole."""

WAITS = "it waits for an answer"
"""Why a call that needs its user has ended: another one follows the answer."""

DENIED = "it was denied"
"""Why a call that its user did not approve has ended."""

T = TypeVar("T")


class Part(enum.StrEnum):
    """What a piece of a message belongs to."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL_INPUT = "tool_input"


PARTS = frozenset(Part)


class _Tool(NamedTuple):
    name: str
    run: Run


class Relay:
    """
    One framework's run on its way into a run of the log.

    Used with ``async with`` inside the run; on leaving it ends the tool calls
    and sub-runs that the framework left open, as failed if it raised. Its
    methods may be awaited on any loop of any thread, several at a time. They
    return when the log has accepted the event, at the log's
    :class:`~catenary.integrations.pace.Pace`.

    Args:
        parts: Which parts of messages are said; all of them by default.

    Raises:
        UsageError: If a part is none.
    """

    def __init__(self, run: Run, *, parts: Collection[str] = PARTS) -> None:
        if unknown := set(parts) - PARTS:
            raise UsageError(f"parts are some of {', '.join(Part)}, not {sorted(unknown)}")
        self.run = run
        self._parts = frozenset(parts)
        self._lock = threading.Lock()
        self._open: dict[str, _Tool] = {}
        self._known: set[str] = set()
        self._inputs: dict[str, JsonRedactor] = {}
        self._children: dict[object, Run] = {}
        self._pace = Pace()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave(error)

    def leave(self, error: BaseException | None = None) -> None:
        """End what is open; nothing is awaited, for the task may be cancelled."""
        for key in reversed(list(self._children)):
            self.end_child(key, error)
        self._close_tools(None, _ending(error))

    # Messages

    async def say(
        self,
        text: str,
        *,
        message_id: str,
        part: Part = Part.TEXT,
        of: Run | None = None,
    ) -> None:
        """Say a piece of a message; of a sub-run if ``of`` is one."""
        if part not in self._parts:
            return
        run = of or self.run
        for begin in range(0, len(text), PIECE_CHARACTERS):
            piece = text[begin : begin + PIECE_CHARACTERS]
            await self._pace.call(run.delta, piece, message_id=fitting(message_id), part=part)

    async def say_input(
        self, text: str, *, message_id: str, tool_call_id: str, of: Run | None = None
    ) -> None:
        """
        Say a piece of a tool's input, which is JSON, before the call begins.

        Its secrets are taken out, unless the application redacts events itself.
        """
        run, call = of or self.run, fitting(tool_call_id)
        if Part.TOOL_INPUT not in self._parts:
            return
        if run.emitter._redactor is None:
            text = self._inputs.setdefault(call, JsonRedactor()).feed(text)
        for begin in range(0, len(text), PIECE_CHARACTERS):
            await self._pace.call(
                run.delta,
                text[begin : begin + PIECE_CHARACTERS],
                message_id=fitting(message_id),
                part=Part.TOOL_INPUT,
                tool_call_id=call,
            )

    async def custom(self, type: str, data: Any, *, of: Run | None = None) -> None:
        """Emit what only this framework knows, as an event of a type of its own."""
        await self._pace.call((of or self.run).custom, type, data)

    # Tools

    async def begin_tool(
        self, name: str, tool_input: Any, *, tool_call_id: str, of: Run | None = None
    ) -> None:
        """Begin a tool call, unless it has begun: frameworks tell of some twice."""
        run, call = of or self.run, fitting(tool_call_id)
        with self._lock:
            if call in self._known:
                return
            self._known.add(call)
            self._inputs.pop(call, None)
            self._open[call] = _Tool(name, run)
        about = {"tool_call_id": call, "run_id": run.run_id}
        try:
            run._check()
            await self._pace.call(run.emitter.tool_executing, name, tool_input, **about)
        except EventTooLarge as error:
            cut = {"too_large_bytes": error.size_bytes}
            await self._pace.call(run.emitter.tool_executing, name, cut, **about)

    async def end_tool(
        self,
        tool_call_id: str,
        output: Any = None,
        *,
        error: str | None = None,
        name: str = "",
        tool_input: Any = None,
        of: Run | None = None,
    ) -> None:
        """End a tool call, once; ``error`` is what the user reads if it failed (see :func:`failure`)."""
        await self.begin_tool(name, tool_input, tool_call_id=tool_call_id, of=of)
        call = fitting(tool_call_id)
        tool = self._open.pop(call, None)
        if tool is not None:
            await self._pace.call(
                tool.run.emitter.tool_completed,
                tool.name,
                output if error is None else None,
                tool_call_id=call,
                success=error is None,
                error=error,
                run_id=tool.run.run_id,
            )
            # A cancel is raised here too, where a framework works in a thread.
            tool.run._check()

    def knows(self, tool_call_id: str) -> bool:
        """Whether this call has begun here; it may have ended."""
        return fitting(tool_call_id) in self._known

    def _close_tools(self, run: Run | None, because: str) -> None:
        """End the open calls of a run, or of all."""
        for call, tool in list(self._open.items()):
            if run is None or tool.run is run:
                del self._open[call]
                self._close_tool(call, tool, because)

    def _close_tool(self, call: str, tool: _Tool, because: str) -> None:
        try:
            tool.run.emitter.tool_completed(
                tool.name, tool_call_id=call, success=False, error=because, run_id=tool.run.run_id
            )
        except (RunClosed, LifecycleError, LogError) as problem:
            logger.info("tool %s of run %s: %s", tool.name, tool.run.run_id, problem)

    # Sub-runs

    async def child(self, key: object, agent_name: str | None, *, of: Run | None = None) -> Run:
        """Return the sub-run with this key; it begins when it is asked for first."""
        return await self._pace.with_room(lambda: self._child(key, agent_name, of or self.run))

    def _child(self, key: object, agent_name: str | None, parent: Run) -> Run:
        with self._lock:
            child = self._children.get(key)
            if child is None:
                child = parent.child(agent_name=agent_name)
                child.begin()
                self._pass_cancels(child)
                self._children[key] = child
            return child

    def _pass_cancels(self, child: Run) -> None:
        """Let a cancel of a sub-run stop the framework: it can only be stopped as a whole."""
        interrupt = self.run._interrupt
        if interrupt is not None:
            child.held.on_cancel.append(lambda: interrupt.raise_cause(Cause.CANCEL))

    def end_child(self, key: object, error: BaseException | None = None) -> None:
        """End a sub-run and what it left open; one that never began is none."""
        child = self._children.pop(key, None)
        if child is None:
            return
        self._close_tools(child, _ending(error))
        try:
            child.end(error)
        except LogError as problem:
            logger.warning("run %s stays open: %s", child.run_id, problem)

    def suspend_child(self, key: object) -> None:
        """End a sub-run that waits for the user."""
        child = self._children.get(key)
        if child is not None:
            self._close_tools(child, WAITS)
            child.emitter.agent_completed(outcome="suspended", run_id=child.run_id)
            self.end_child(key)

    def suspend(self) -> None:
        """End what is open, for the framework waits for the user."""
        for key in reversed(list(self._children)):
            self.suspend_child(key)
        self._close_tools(None, WAITS)

    # Usage

    def add_usage(self, usage: Usage) -> None:
        """Add to the usage of the run; two relays of one run add to the same."""
        with self._lock:
            known = self.run._usage
            self.run.set_usage(known + usage if isinstance(known, Usage) else usage)


class closing(Generic[T]):  # noqa: N801 - read as contextlib.closing is
    """Close a framework's stream at the end, however it is left, so that what feeds it stops."""

    def __init__(self, stream: AsyncIterable[T]) -> None:
        self._stream = stream

    async def __aenter__(self) -> AsyncIterable[T]:
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        close = getattr(self._stream, "aclose", None)
        # A task that is collected may not await any more.
        if close is not None and not isinstance(error, GeneratorExit):
            await close()


def failure(error: object = None) -> str:
    """
    Return what the user reads of a tool's failure.

    The text of an exception may hold what the user must not see, so its class
    is named; the text of :class:`RunFailed` was written for the user.
    """
    if isinstance(error, RunFailed):
        return str(error)
    if isinstance(error, asyncio.CancelledError | RunCancelled | GeneratorExit):
        return "it was cancelled"
    return type(error).__name__ if isinstance(error, BaseException) else "the tool failed"


def _ending(error: BaseException | None) -> str:
    return "it did not end" if error is None else failure(error)


def fitting(id: str) -> str:
    """Return an id as it is, or a shorter one where a log cannot hold it: some providers put data into ids."""
    if len(id) <= ID_LIMIT and id.isprintable():
        return id
    return f"id_{hashlib.blake2b(id.encode(errors='replace'), digest_size=20).hexdigest()}"


def parsed(arguments: Any) -> Any:
    """Return the arguments of a call that came as JSON text; other text as it is."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return arguments

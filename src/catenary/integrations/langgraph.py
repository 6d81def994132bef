"""
LangGraph, and the agents of ``langchain``: what a graph streams, in a run of the log.

::

    async def answer(run: Run, question: str) -> dict[str, Any]:
        asked = {"messages": [("user", question)]}
        stream = graph.astream(asked, stream_mode=MODES, subgraphs=True)
        return await relay(stream, run, nodes={"agent"})
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Collection, Mapping
from typing import Any, Final, cast

from langchain_core.messages import AIMessage, ToolMessage
from langgraph.types import Command, Interrupt, StreamMode

from catenary.answering import Answer
from catenary.errors import UsageError
from catenary.integrations.answers import ask_all
from catenary.integrations.chat_messages import Messages, end_tool, usage_of
from catenary.integrations.interrupts import INTERRUPT, asked_by, resumed
from catenary.integrations.relay import PARTS, Relay, closing, failure
from catenary.runs import Run

MODES: Final[list[StreamMode]] = [
    "messages",
    "values",
    "tasks",
    "custom",
    # Of the modes that LangGraph's types do not name, the one that tells when tools begin and end.
    cast("StreamMode", "tools"),
]
"""What ``graph.astream(…, stream_mode=MODES)`` must tell of for all to be relayed."""

_Path = tuple[str, ...]


async def relay(
    stream: AsyncIterable[Any],
    run: Run,
    *,
    nodes: Collection[str] | None = None,
    parts: Collection[str] = PARTS,
) -> Any:
    """
    Relay what ``graph.astream(…, stream_mode=MODES, subgraphs=True)`` tells; return the last state.

    Each message of a model is one message; each sub-graph that says something
    is a sub-run, while its node is at work. ``nodes`` are the nodes whose
    messages are said, with all that is inside them, and with the tool calls
    that these messages ask for; None: all. ``parts`` says which parts of
    messages. What a graph writes to its custom stream becomes
    ``langgraph.custom``. If the graph was interrupted, the state's
    ``__interrupt__`` has all interrupts. What it raises comes through; a cancel
    of ``run`` stops it.

    Raises:
        UsageError: If a part is none, or the stream does not say what mode each part is of.
    """
    async with Relay(run, parts=parts) as to, closing(stream) as chunks:
        telling = _Telling(to, nodes)
        async for chunk in chunks:
            await telling.take(*_told(chunk))
        if telling.is_interrupted:
            to.suspend()
    return telling.state


def suspend(run: Run, state: Any, *, keep: Any = None) -> bool:
    """
    End the run with questions, if the graph was interrupted; return whether it was.

    What an interrupt holds is the question: a text, or a dict with ``question``
    and, if it likes, ``kind`` and ``schema``; of LangChain's middleware for
    humans in the loop each tool call is an approval. ``keep`` is kept with
    them, such as the graph's ``thread_id``, and comes back as
    ``answer.state["keep"]``; ``resume`` makes of the answers what the graph
    goes on with, in a run of its own. It needs a checkpointer that lasts.
    """
    asked = asked_by(state)
    if asked:
        places = [one.place for one in asked]
        run.suspend([one.request for one in asked], state={"places": places, "keep": keep})
    return bool(asked)


def resume(answer: Answer) -> Command[Any]:
    """Return what the graph goes on with: ``graph.astream(resume(answer), config, …)``."""
    return resumed(answer.state["places"], answer.answers.values())


async def ask(run: Run, state: Any, *, timeout: float | None = None) -> Command[Any] | None:
    """
    Ask what the graph was interrupted for, and wait within the run; None if it was not.

    ::

        state = await relay(stream_of(graph, question), run)
        while command := await ask(run, state):
            state = await relay(stream_of(graph, command), run)

    Raises:
        TimeoutError: If nobody answered within ``timeout`` seconds.
    """
    asked = asked_by(state)
    if not asked:
        return None
    answers = await ask_all(run, [one.request for one in asked], timeout=timeout)
    return resumed([one.place for one in asked], answers)


def _told(chunk: object) -> tuple[_Path, str, Any]:
    """Return whose, of which mode and what a chunk is, of either version of the stream."""
    if isinstance(chunk, tuple) and len(chunk) == 3:
        return chunk
    if isinstance(chunk, tuple) and len(chunk) == 2 and isinstance(chunk[0], str):
        return ((), *chunk)
    if isinstance(chunk, dict) and chunk.keys() >= {"type", "ns", "data"}:
        data = chunk["data"]
        if chunk.get("interrupts"):
            data = {**data, INTERRUPT: chunk["interrupts"]}
        return chunk["ns"], chunk["type"], data
    raise UsageError("relay() takes graph.astream(…, stream_mode=MODES, subgraphs=True)")


class _Telling:
    """What one graph tells, with its sub-graphs."""

    def __init__(self, to: Relay, nodes: Collection[str] | None) -> None:
        self._to = to
        self._nodes = None if nodes is None else frozenset(nodes)
        self._messages = Messages(to)
        self._agents: dict[_Path, str] = {}
        self._base: _Path | None = None
        self._scopes: set[_Path] = set()
        self._counted: set[str] = set()
        self._hidden: set[str] = set()
        self._values: Any = None
        self._interrupts: dict[str, Interrupt] = {}

    @property
    def state(self) -> Any:
        if not self._interrupts or not isinstance(self._values, dict):
            return self._values
        return {**self._values, INTERRUPT: tuple(self._interrupts.values())}

    @property
    def is_interrupted(self) -> bool:
        return bool(self._interrupts)

    async def take(self, ns: _Path, mode: str, data: Any) -> None:
        if self._base is None and mode in {"values", "tasks"}:
            # A graph that another one calls is told with that one's place.
            self._base = ns
        path = _path(ns[len(self._base or ()) :])
        if mode == "messages":
            await self._message(path, *data)
        elif mode == "tools":
            await self._tool(path, data)
        elif mode == "tasks" and "result" in data:
            self._task_ended(path, data)
        elif mode == "values" and not path:
            self._keep(data)
        elif mode == "custom":
            await self._to.custom("langgraph.custom", data, of=await self._run(path))

    def _keep(self, values: Any) -> None:
        self._values = values
        if isinstance(values, dict):
            for interrupt in values.get(INTERRUPT, ()):
                self._interrupts[interrupt.id] = interrupt

    def _is_shown(self, path: _Path, node: str | None = None) -> bool:
        around = {node, *(_node(segment) for segment in path)}
        return self._nodes is None or not self._nodes.isdisjoint(around)

    # Messages

    async def _message(self, path: _Path, message: object, about: Mapping[str, Any]) -> None:
        node = about.get("langgraph_node")
        if isinstance(message, ToolMessage):
            await self._answered(path, node, message)
        elif isinstance(message, AIMessage):
            self._note_agent(path, about.get("lc_agent_name"))
            is_shown = self._is_shown(path, node)
            message_id = message.id or about.get("langgraph_checkpoint_ns") or "message"
            self._messages.ask(message, message_id, is_shown=is_shown)
            self._count(message)
            if is_shown:
                await self._messages.say(message, message_id, of=await self._run(path))

    def _count(self, message: AIMessage) -> None:
        if message.usage_metadata is not None:
            is_new = message.id not in self._counted
            self._counted.add(message.id or "")
            self._to.add_usage(usage_of(message, requests=int(is_new)))

    async def _answered(self, path: _Path, node: str | None, message: ToolMessage) -> None:
        """End a call of which no more was told than its answer."""
        call = message.tool_call_id
        asked = self._messages.asked_for(call)
        if asked is not None:
            is_shown = asked.is_shown
        else:
            is_shown = self._to.knows(call) or self._is_shown(path, node)
        if is_shown and call not in self._hidden:
            of = await self._run(path)
            if asked is not None:
                await self._to.begin_tool(asked.name, asked.arguments, tool_call_id=call, of=of)
            await end_tool(self._to, call, message, of=of)

    # Tools

    async def _tool(self, path: _Path, data: Mapping[str, Any]) -> None:
        call, event = data["tool_call_id"], data["event"]
        if event == "tool-started":
            asked = self._messages.asked_for(call)
            if not (self._is_shown(path) if asked is None else asked.is_shown):
                self._hidden.add(call)
        if call in self._hidden:
            return
        of = await self._run(path)
        if event == "tool-started":
            await self._to.begin_tool(
                data["tool_name"] or "tool", data.get("input"), tool_call_id=call, of=of
            )
        elif event == "tool-finished":
            await end_tool(self._to, call, data["output"], of=of)
        elif event == "tool-error":
            await self._to.end_tool(call, error=failure(), of=of)
        elif event == "tool-output-delta":
            said = {"tool_call_id": call, "delta": data["delta"]}
            await self._to.custom("langgraph.tool_output", said, of=of)

    # Sub-graphs

    def _note_agent(self, path: _Path, name: str | None) -> None:
        """Remember an agent's own name; a graph inside it that has none is told with the same."""
        around = {self._agents.get(path[:depth]) for depth in range(len(path))}
        if name and name not in around:
            self._agents.setdefault(path, name)

    async def _run(self, path: _Path) -> Run | None:
        run = None
        for depth in range(1, len(path) + 1):
            scope = path[:depth]
            self._scopes.add(scope)
            name = self._agents.get(scope) or _node(scope[-1])
            run = await self._to.child(scope, name, of=run)
        return run

    def _task_ended(self, path: _Path, data: Mapping[str, Any]) -> None:
        """End the sub-graphs of a node that has done its work."""
        depth = len(path)
        ended = [
            scope
            for scope in self._scopes
            if len(scope) > depth and scope[:depth] == path and _task(scope[depth]) == data["id"]
        ]
        error = data["error"]
        if error is not None and not isinstance(error, BaseException):
            error = RuntimeError(str(error))
        for scope in sorted(ended, key=len, reverse=True):
            self._scopes.discard(scope)
            if data["interrupts"]:
                self._to.suspend_child(scope)
            else:
                self._to.end_child(scope, error)


def _path(ns: _Path) -> _Path:
    """Return a namespace with one segment for each sub-graph: further ones of a node are numbered."""
    path: list[str] = []
    for segment in ns:
        if segment.isdigit() and path:
            path[-1] += f"|{segment}"
        else:
            path.append(segment)
    return tuple(path)


def _node(segment: str) -> str:
    return segment.partition(":")[0]


def _task(segment: str) -> str:
    return segment.partition("|")[0].partition(":")[2]

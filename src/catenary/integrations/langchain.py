"""
LangChain: what chains, models and tools tell, in a run of the log.

Agents of ``langchain`` and graphs are better relayed by
:mod:`catenary.integrations.langgraph`, which knows their nodes and sub-graphs.

::

    async def answer(run: Run, question: str) -> str:
        return await relay(chain.astream_events(question, version="v2"), run)
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, GenerationChunk, LLMResult

# Its presence makes models stream in `ainvoke` too; there is no public name for it.
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from catenary.errors import UsageError
from catenary.integrations.chat_messages import Messages, end_tool
from catenary.integrations.relay import PARTS, Relay, closing, failure
from catenary.runs import Run

T = TypeVar("T")


async def relay(
    events: AsyncIterable[Any],
    run: Run,
    *,
    tags: Collection[str] | None = None,
    parts: Collection[str] = PARTS,
) -> Any:
    """
    Relay what ``runnable.astream_events(…, version="v2")`` tells; return the runnable's output.

    Each message of a model is one message; a model inside a tool speaks in a
    sub-run. With ``tags`` only what bears one of them is said, and the tool
    calls that it asked for; ``parts`` says which parts of messages. What the
    runnable raises comes through; a cancel of ``run`` stops it.

    Raises:
        UsageError: If a part is none, or these are no events of ``astream_events``.
    """
    root, output = None, None
    async with Relay(run, parts=parts) as to, closing(events) as stream:
        telling = _Telling(to, tags)
        async for event in stream:
            if not isinstance(event, dict) or "event" not in event:
                raise UsageError("relay() takes runnable.astream_events(…, version='v2')")
            root = root or event["run_id"]
            if event["run_id"] == root and event["event"].endswith("_end"):
                output = event["data"].get("output")
            await telling.take(event)
    return output


class RelayHandler(AsyncCallbackHandler, _StreamingCallbackHandler[Any]):
    """
    A callback handler that relays: for whatever takes ``config={"callbacks": […]}``.

    ::

        async with RelayHandler(run) as handler:
            answer = await chain.ainvoke(question, config={"callbacks": [handler]})

    It may be called on any loop of any thread, as LangChain does for
    synchronous chains. The chain goes on when the log has taken what it said.
    """

    raise_error = True
    run_inline = True

    def __init__(
        self, run: Run, *, tags: Collection[str] | None = None, parts: Collection[str] = PARTS
    ) -> None:
        super().__init__()
        self._relay = Relay(run, parts=parts)
        self._telling = _Telling(self._relay, tags)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._relay.leave(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._relay.leave(error)

    def tap_output_aiter(self, run_id: UUID, output: AsyncIterator[T]) -> AsyncIterator[T]:
        """Leave the output as it is: the tokens tell."""
        return output

    def tap_output_iter(self, run_id: UUID, output: Iterator[T]) -> Iterator[T]:
        """Leave the output as it is."""
        return output

    async def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Take note of what calls what."""
        self._telling.note(str(run_id), parent_run_id)

    async def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **kwargs: Any) -> None:
        """Forget it."""
        self._telling.forget(str(run_id))

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget it."""
        self._telling.forget(str(run_id))

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take note of what calls a model, and what its messages are tagged with."""
        self._telling.note(str(run_id), parent_run_id)
        self._telling.begin(str(run_id), tags)

    async def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take note of what calls a model, and what its texts are tagged with."""
        self._telling.note(str(run_id), parent_run_id)
        self._telling.begin(str(run_id), tags)

    async def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        """Say a piece of a message."""
        if isinstance(chunk, ChatGenerationChunk):
            await self._telling.piece(str(run_id), chunk.message)
        elif isinstance(token, str):
            await self._telling.piece(str(run_id), token)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Say a message that did not come in pieces, and count what it took."""
        made = response.generations[0][0] if response.generations else None
        if made is not None:
            said = made.message if isinstance(made, ChatGeneration) else made.text
            await self._telling.message(str(run_id), said)

    async def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin a tool call."""
        self._telling.note(str(run_id), parent_run_id)
        name = kwargs.get("name") or (serialized or {}).get("name") or "tool"
        given = input_str if inputs is None else inputs
        call = kwargs.get("tool_call_id")
        await self._telling.tool_began(str(run_id), name, given, call, tags)

    async def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """End a tool call."""
        await self._telling.tool_ended(str(run_id), output)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a tool call that raised."""
        await self._telling.tool_failed(str(run_id), error)


class _Telling:
    """
    What models and tools tell; each of their runs has an id of LangChain's.

    A model that works inside a tool speaks in a sub-run, which the tool's name names.
    """

    def __init__(self, to: Relay, tags: Collection[str] | None) -> None:
        self._to = to
        self._tags = None if tags is None else frozenset(tags)
        self._messages = Messages(to)
        self._parents: dict[str, str | None] = {}
        self._tools: dict[str, str] = {}
        self._calls: dict[str, str] = {}
        self._hidden: set[str] = set()
        self._said: set[str] = set()

    async def take(self, event: Mapping[str, Any]) -> None:
        """Take an event of ``astream_events``."""
        run_id, kind, data = event["run_id"], event["event"], event["data"]
        if kind.endswith("_start"):
            self.note(run_id, next(reversed(event["parent_ids"]), None))
        if kind in {"on_chat_model_start", "on_llm_start"}:
            self.begin(run_id, event["tags"])
        elif kind in {"on_chat_model_stream", "on_llm_stream"}:
            chunk = data["chunk"]
            await self.piece(run_id, chunk if isinstance(chunk, BaseMessage | str) else chunk.text)
        elif kind == "on_chat_model_end":
            await self.message(run_id, data["output"])
        elif kind == "on_llm_end":
            await self.message(run_id, data["output"]["generations"][0][0]["text"])
        elif kind == "on_tool_start":
            await self.tool_began(run_id, event["name"], data["input"], None, event["tags"])
        elif kind == "on_tool_end":
            await self.tool_ended(run_id, data["output"])
        elif kind == "on_tool_error":
            await self.tool_failed(run_id, data["error"])
        elif kind.endswith("_end"):
            self.forget(run_id)

    # What calls what

    def note(self, run_id: str, parent: object) -> None:
        self._parents[run_id] = None if parent is None else str(parent)

    def forget(self, run_id: str) -> None:
        self._parents.pop(run_id, None)

    async def _run(self, run_id: str) -> Run | None:
        """Return the sub-run of the tool that something works for; None if for no tool."""
        above = self._parents.get(run_id)
        while above is not None and above not in self._tools:
            above = self._parents.get(above)
        if above is None:
            return None
        return await self._to.child(above, self._tools[above], of=await self._run(above))

    def _is_shown(self, tags: Collection[str] | None) -> bool:
        return self._tags is None or not self._tags.isdisjoint(tags or ())

    # Models

    def begin(self, run_id: str, tags: Collection[str] | None) -> None:
        if not self._is_shown(tags):
            self._hidden.add(run_id)

    async def piece(self, run_id: str, said: BaseMessage | str) -> None:
        self._said.add(run_id)
        is_shown = run_id not in self._hidden
        if isinstance(said, AIMessage):
            self._messages.ask(said, said.id or run_id, is_shown=is_shown)
            if is_shown:
                await self._messages.say(said, said.id or run_id, of=await self._run(run_id))
        elif isinstance(said, str) and is_shown:
            await self._to.say(said, message_id=run_id, of=await self._run(run_id))

    async def message(self, run_id: str, said: object) -> None:
        is_shown = run_id not in self._hidden
        if isinstance(said, AIMessage):
            self._messages.ask(said, said.id or run_id, is_shown=is_shown)
            self._messages.count(said)
        if run_id not in self._said and isinstance(said, BaseMessage | str):
            await self.piece(run_id, said)
        self._said.discard(run_id)
        self._hidden.discard(run_id)
        self.forget(run_id)

    # Tools

    async def tool_began(
        self, run_id: str, name: str, given: Any, call: str | None, tags: Collection[str] | None
    ) -> None:
        of = await self._run(run_id)
        self._tools[run_id] = name
        asked = self._messages.asked_for(call) if call else self._messages.asked_with(name, given)
        if self._is_shown(tags) or (asked is not None and asked.is_shown):
            call = asked.call if asked is not None else call or run_id
            self._calls[run_id] = call
            await self._to.begin_tool(name, given, tool_call_id=call, of=of)

    async def tool_ended(self, run_id: str, output: Any) -> None:
        call = self._leave_tool(run_id, None)
        if call is not None:
            await end_tool(self._to, call, output)

    async def tool_failed(self, run_id: str, error: BaseException) -> None:
        call = self._leave_tool(run_id, error)
        if call is not None:
            await self._to.end_tool(call, error=failure(error))

    def _leave_tool(self, run_id: str, error: BaseException | None) -> str | None:
        self._to.end_child(run_id, error)
        self._tools.pop(run_id, None)
        self.forget(run_id)
        return self._calls.pop(run_id, None)

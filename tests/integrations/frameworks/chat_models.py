"""LangChain's ``GenericFakeChatModel``, which streams what a script says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool, StructuredTool, ToolException

from tests.integrations.frameworks.script import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Call,
    Refused,
    Say,
    Think,
    playing,
)


class ScriptedChat(GenericFakeChatModel):
    """Plays a turn for each call; as the fake it is, it takes no notice of what it is asked."""

    messages: Iterator[Any] = iter(())
    turns: list[Any]

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedChat:
        """A script knows which tools there are."""
        return self

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        calls = 0
        async for piece in playing(self.turns.pop(0)):
            for chunk in chunks_of(piece, calls):
                yield ChatGenerationChunk(message=chunk)
            calls += isinstance(piece, Call)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=taken()))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        async def all_chunks() -> list[ChatGenerationChunk]:
            return [chunk async for chunk in self._astream(messages)]

        yield from asyncio.run(all_chunks())

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        whole = ChatGenerationChunk(message=AIMessageChunk(content=""))
        for chunk in self._stream(messages):
            whole += chunk
        message = whole.message
        assert isinstance(message, AIMessageChunk)
        said = message.model_copy(update={"type": "ai"})
        return ChatResult(generations=[ChatGeneration(message=said)])


def taken() -> UsageMetadata:
    return UsageMetadata(
        input_tokens=INPUT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        total_tokens=INPUT_TOKENS + OUTPUT_TOKENS,
    )


def chunks_of(piece: Think | Say | Call, index: int) -> Iterator[AIMessageChunk]:
    """Yield a piece as providers send it; ``index`` is the number of a call in its message."""
    if isinstance(piece, Think):
        yield AIMessageChunk(content=[{"type": "reasoning", "reasoning": piece.text}])
    elif isinstance(piece, Say):
        yield AIMessageChunk(content=piece.text)
    else:
        for number, text in enumerate(piece.pieces):
            name = piece.name if number == 0 else None
            call = piece.id if number == 0 else None
            chunk = tool_call_chunk(name=name, args=text, id=call, index=index)
            yield AIMessageChunk(content="", tool_call_chunks=[chunk])


def as_tool(function: Callable[..., Any]) -> BaseTool:
    """Return a tool whose refusals the model is told of."""
    is_async = asyncio.iscoroutinefunction(function)

    def refusing(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Refused as error:
            raise ToolException(str(error)) from error

    async def refusing_later(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except Refused as error:
            raise ToolException(str(error)) from error

    schema = StructuredTool.from_function(
        None if is_async else function, function if is_async else None
    ).args_schema
    return StructuredTool.from_function(
        None if is_async else refusing,
        refusing_later if is_async else None,
        name=function.__name__,
        description=function.__doc__ or "",
        args_schema=schema,
        infer_schema=False,
        handle_tool_error=True,
    )

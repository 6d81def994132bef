"""OpenAI Agents SDK with its ``ScriptedModel``."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    RunContextWrapper,
    Runner,
    Usage,
    default_tool_error_function,
    function_tool,
    set_tracing_disabled,
)
from agents.testing import ModelStep, ScriptedModel
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseCreatedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionToolCall,
    ResponseFunctionWebSearch,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_reasoning_item import Summary
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from catenary import Run
from catenary.answering import Answer
from catenary.integrations.openai_agents import RelayHooks, ask, relay, resume, suspend
from catenary.integrations.relay import PARTS
from tests.integrations.frameworks.cautious import SCRIPT, delete
from tests.integrations.frameworks.script import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Call,
    Refused,
    Say,
    Think,
    Turn,
    playing,
)

set_tracing_disabled(disabled=True)

TAKEN = INPUT_TOKENS + OUTPUT_TOKENS
Item = (
    ResponseReasoningItem
    | ResponseOutputMessage
    | ResponseFunctionToolCall
    | ResponseFunctionWebSearch
)


def model(turns: Sequence[Turn]) -> ScriptedModel:
    """Return a model that plays a turn for each response."""
    usage = Usage(
        requests=1, input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS, total_tokens=TAKEN
    )

    def step(turn: Turn) -> ModelStep:
        return ModelStep.stream(lambda call: events(turn), usage=usage)

    return ScriptedModel([step(turn) for turn in turns])


async def events(turn: Turn) -> AsyncIterator[ResponseStreamEvent]:
    """Yield what the provider sends for a turn: each piece an event, then the whole."""
    number = itertools.count()
    items: list[Item] = []
    yield ResponseCreatedEvent(
        response=response([]), sequence_number=next(number), type="response.created"
    )
    async for piece in playing(turn):
        is_new = isinstance(piece, Call) or not items or not _goes_on(items[-1], piece)
        if is_new:
            if items:
                yield done(items, next(number))
            items.append(_begun(piece, len(items)))
            yield ResponseOutputItemAddedEvent(
                item=items[-1].model_copy(deep=True),
                output_index=len(items) - 1,
                sequence_number=next(number),
                type="response.output_item.added",
            )
        for delta in _add(items, piece, number):
            yield delta
    if items:
        yield done(items, next(number))
    yield ResponseCompletedEvent(
        response=response(items), sequence_number=next(number), type="response.completed"
    )


async def hosted(item: ResponseFunctionWebSearch) -> AsyncIterator[ResponseStreamEvent]:
    """Yield what the provider sends of a tool of its own."""
    yield ResponseCreatedEvent(response=response([]), sequence_number=0, type="response.created")
    yield done([item], 1)
    yield ResponseCompletedEvent(
        response=response([item]), sequence_number=2, type="response.completed"
    )


def _goes_on(item: Item, piece: Think | Say | Call) -> bool:
    kind = ResponseReasoningItem if isinstance(piece, Think) else ResponseOutputMessage
    return isinstance(item, kind)


def _begun(piece: Think | Say | Call, index: int) -> Item:
    if isinstance(piece, Think):
        summary = [Summary(text="", type="summary_text")]
        return ResponseReasoningItem(id=f"rs_{index}", summary=summary, type="reasoning")
    if isinstance(piece, Call):
        return ResponseFunctionToolCall(
            id=f"fc_{index}", call_id=piece.id, name=piece.name, arguments="", type="function_call"
        )
    content = ResponseOutputText(text="", annotations=[], type="output_text")
    return ResponseOutputMessage(
        id=f"msg_{index}", content=[content], role="assistant", status="completed", type="message"
    )


def _add(
    items: list[Item], piece: Think | Say | Call, number: itertools.count[int]
) -> list[ResponseStreamEvent]:
    """Add a piece to the last item; return the events of it."""
    item, index = items[-1], len(items) - 1
    if isinstance(item, ResponseReasoningItem) and isinstance(piece, Think):
        item.summary[0].text += piece.text
        return [
            ResponseReasoningSummaryTextDeltaEvent(
                delta=piece.text,
                item_id=item.id,
                output_index=index,
                summary_index=0,
                sequence_number=next(number),
                type="response.reasoning_summary_text.delta",
            )
        ]
    if isinstance(item, ResponseFunctionToolCall) and isinstance(piece, Call):
        item.arguments = piece.input
        return [
            ResponseFunctionCallArgumentsDeltaEvent(
                delta=text,
                item_id=item.id or "",
                output_index=index,
                sequence_number=next(number),
                type="response.function_call_arguments.delta",
            )
            for text in piece.pieces
        ]
    assert isinstance(item, ResponseOutputMessage)
    assert isinstance(piece, Say)
    said = item.content[0]
    assert isinstance(said, ResponseOutputText)
    said.text += piece.text
    return [
        ResponseTextDeltaEvent(
            delta=piece.text,
            item_id=item.id,
            output_index=index,
            content_index=0,
            logprobs=[],
            sequence_number=next(number),
            type="response.output_text.delta",
        )
    ]


def done(items: Sequence[Item], number: int) -> ResponseOutputItemDoneEvent:
    return ResponseOutputItemDoneEvent(
        item=items[-1].model_copy(deep=True),
        output_index=len(items) - 1,
        sequence_number=number,
        type="response.output_item.done",
    )


def response(output: Sequence[Item]) -> Response:
    return Response(
        id="resp_1",
        created_at=0,
        model="scripted",
        object="response",
        output=list(output),
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
        usage=ResponseUsage(
            input_tokens=INPUT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
            total_tokens=TAKEN,
            input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        ),
    )


def as_tool(function: Callable[..., Any], **options: Any) -> FunctionTool:
    """Return a tool whose refusals the model is told of; other errors end the run."""

    def failed(context: RunContextWrapper[Any], error: Exception) -> str:
        if isinstance(error, Refused):
            return default_tool_error_function(context, error)
        raise error

    return function_tool(function, failure_error_function=failed, **options)


def agent(
    turns: Sequence[Turn], tools: Sequence[Callable[..., Any]] = (), *, name: str = "researcher"
) -> Agent[Any]:
    return Agent(name=name, model=model(turns), tools=[as_tool(tool) for tool in tools])


async def answer(
    run: Run,
    turns: Sequence[Turn],
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    result = await relay(Runner.run_streamed(agent(turns, tools), "Which?"), run, parts=parts)
    return str(result.final_output)


async def answer_with_hooks(
    run: Run,
    turns: Sequence[Turn],
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    hooks = RelayHooks()
    streamed = Runner.run_streamed(agent(turns, tools), "Which?", hooks=hooks)
    result = await relay(streamed, run, parts=parts, hooks=hooks)
    return str(result.final_output)


class CautiousAgent:
    """An agent with a tool that needs an approval."""

    def __init__(self) -> None:
        tool = as_tool(delete, needs_approval=True)
        self.agent: Agent[Any] = Agent(name="cleaner", model=model(SCRIPT), tools=[tool])

    async def ask(self, run: Run) -> None:
        result = await relay(Runner.run_streamed(self.agent, "Which?"), run)
        while state := await ask(run, result):
            result = await relay(Runner.run_streamed(self.agent, state), run)

    async def suspend(self, run: Run) -> None:
        assert suspend(run, await relay(Runner.run_streamed(self.agent, "Which?"), run))

    async def resume(self, run: Run, answer: Answer) -> None:
        state = await resume(answer, self.agent)
        assert not suspend(run, await relay(Runner.run_streamed(self.agent, state), run))

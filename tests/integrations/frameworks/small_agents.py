"""smolagents with a model of its own kind: a ``Model`` that plays a script."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from smolagents import Model, Tool, ToolCallingAgent
from smolagents.agents import LogLevel
from smolagents.models import (
    ChatMessage,
    ChatMessageStreamDelta,
    ChatMessageToolCallFunction,
    ChatMessageToolCallStreamDelta,
    agglomerate_stream_deltas,
)
from smolagents.monitoring import TokenUsage

from catenary import Run
from catenary.integrations.relay import PARTS
from catenary.integrations.smolagents import relay
from tests.integrations.frameworks.script import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Call,
    Fail,
    Say,
    Script,
    Think,
    Turn,
    Wait,
)


class ScriptedModel(Model):
    """
    Plays a turn for each response, on whatever thread it is asked.

    A turn that calls nothing is the agent's final answer, as a call of that tool.
    """

    def __init__(self, turns: Script, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(model_id="scripted")
        self._turns = list(turns)
        self._loop = loop

    def generate_stream(self, messages: Any, **options: Any) -> Iterator[ChatMessageStreamDelta]:
        turn = self._turns.pop(0)
        yield from self._deltas(turn)
        usage = TokenUsage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS)
        yield ChatMessageStreamDelta(token_usage=usage)

    def generate(self, messages: Any, **options: Any) -> ChatMessage:
        return agglomerate_stream_deltas(list(self.generate_stream(messages)))

    def _deltas(self, turn: Turn) -> Iterator[ChatMessageStreamDelta]:
        calls = [piece for piece in turn if isinstance(piece, Call)]
        # The final answer comes whole; a script that waits in a turn wants to see it grow.
        is_plain = all(isinstance(piece, Think | Say) for piece in turn)
        answer = "".join(piece.text for piece in turn if is_plain and isinstance(piece, Say))
        for piece in turn:
            if isinstance(piece, Fail):
                raise piece.error
            if isinstance(piece, Wait):
                asyncio.run_coroutine_threadsafe(_awaited(piece), self._loop).result()
            elif isinstance(piece, Call):
                yield from call_deltas(calls.index(piece), piece)
            elif isinstance(piece, Think) or not is_plain:
                yield ChatMessageStreamDelta(content=piece.text)
        if not calls:
            given = f'{{"answer": "{answer}"}}'
            yield from call_deltas(0, Call("call_final", "final_answer", (given,)))


async def _awaited(piece: Wait) -> None:
    await piece.until()


def call_deltas(index: int, piece: Call) -> Iterator[ChatMessageStreamDelta]:
    for number, text in enumerate(piece.pieces):
        is_first = number == 0
        function = ChatMessageToolCallFunction(name=piece.name if is_first else "", arguments=text)
        call = ChatMessageToolCallStreamDelta(
            index=index, id=piece.id if is_first else None, type="function", function=function
        )
        yield ChatMessageStreamDelta(tool_calls=[call])


def as_tool(function: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> Tool:
    """Return a tool, which smolagents calls in a thread."""

    def forward(self: Tool, **given: Any) -> Any:
        if inspect.iscoroutinefunction(function):
            return asyncio.run_coroutine_threadsafe(function(**given), loop).result()
        return function(**given)

    inputs = {
        name: {"type": "string", "description": name}
        for name in inspect.signature(function).parameters
    }
    about = {"name": function.__name__, "description": function.__doc__, "output_type": "string"}
    made = {"inputs": inputs, "forward": forward, "skip_forward_signature_validation": True}
    kind = type(function.__name__, (Tool,), {**about, **made})
    found: Tool = kind()
    return found


async def answer(
    run: Run,
    turns: Script,
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    loop = asyncio.get_running_loop()
    agent = ToolCallingAgent(
        tools=[as_tool(function, loop) for function in tools],
        model=ScriptedModel(turns, loop),
        stream_outputs=True,
        verbosity_level=LogLevel.OFF,
    )
    return str(await relay(agent.run("Which?", stream=True), run, parts=parts))

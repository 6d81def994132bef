"""Google ADK with a model of its own kind: a ``BaseLlm`` that plays a script."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Any

from google.adk.agents import BaseAgent, LlmAgent
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai.types import (
    Content,
    FunctionCall,
    GenerateContentResponseUsageMetadata,
    Part,
)

from catenary import Run
from catenary.integrations.google_adk import STREAMED, relay, text_of
from catenary.integrations.relay import PARTS
from tests.integrations.frameworks.script import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Call,
    Refused,
    Say,
    Script,
    Think,
    playing,
)

TAKEN = GenerateContentResponseUsageMetadata(
    prompt_token_count=INPUT_TOKENS,
    candidates_token_count=OUTPUT_TOKENS,
    total_token_count=INPUT_TOKENS + OUTPUT_TOKENS,
)


class ScriptedLlm(BaseLlm):
    """Plays a turn for each response: its pieces, then the whole, as ADK asks of models."""

    turns: list[Any]

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        parts: list[Part] = []
        async for piece in playing(self.turns.pop(0)):
            parts.append(part_of(piece))
            if stream:
                yield LlmResponse(content=Content(role="model", parts=parts[-1:]), partial=True)
        yield LlmResponse(content=Content(role="model", parts=parts), usage_metadata=TAKEN)


def part_of(piece: Think | Say | Call) -> Part:
    if isinstance(piece, Call):
        called = FunctionCall(id=piece.id, name=piece.name, args=json.loads(piece.input))
        return Part(function_call=called)
    return Part(text=piece.text, thought=isinstance(piece, Think) or None)


def as_tool(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a tool whose refusals the model is told of; ADK calls synchronous ones on the loop."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            if inspect.iscoroutinefunction(function):
                return await function(*args, **kwargs)
            return await asyncio.to_thread(function, *args, **kwargs)
        except Refused as error:
            return {"error": str(error)}

    return call


def agent(
    turns: Script,
    tools: Sequence[Callable[..., Any]] = (),
    *,
    name: str = "researcher",
    **more: Any,
) -> LlmAgent:
    model = ScriptedLlm(model="scripted", turns=list(turns))
    return LlmAgent(name=name, model=model, tools=[as_tool(tool) for tool in tools], **more)


async def events(asked: BaseAgent, **options: Any) -> Any:
    """Return what a runner yields for one question in a session of its own."""
    runner = InMemoryRunner(agent=asked, app_name="app")
    session = await runner.session_service.create_session(app_name="app", user_id="user_123")
    message = Content(role="user", parts=[Part(text="Which?")])
    return runner.run_async(
        user_id="user_123", session_id=session.id, new_message=message, **options
    )


async def answer(
    run: Run,
    turns: Script,
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    streamed = await events(agent(turns, tools), run_config=STREAMED)
    return text_of(await relay(streamed, run, parts=parts))

"""CrewAI with a model of its own kind: a ``BaseLLM`` that plays a script."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

from crewai import Agent, Crew, Task
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context
from crewai.tools import BaseTool
from pydantic import BaseModel, PrivateAttr, create_model

from catenary import Run
from catenary.integrations.crewai import relay
from catenary.integrations.relay import PARTS
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

TAKEN = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}


class ScriptedLLM(BaseLLM):
    """Plays a turn for each call, on whatever thread it is asked, and tells of it as CrewAI's own do."""

    _turns: list[Turn] = PrivateAttr()
    _loop: asyncio.AbstractEventLoop = PrivateAttr()

    def __init__(self, turns: Script, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(model="scripted", **{"stream": True, **options})
        self._turns = list(turns)
        self._loop = loop

    def supports_function_calling(self) -> bool:
        return True

    def get_input_tokens_count(self, *args: Any, **options: Any) -> int:
        return INPUT_TOKENS

    def call(
        self,
        messages: Any,
        tools: Any = None,
        callbacks: Any = None,
        available_functions: Any = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        of = {"from_task": from_task, "from_agent": from_agent}
        turn = self._turns.pop(0)
        with llm_call_context():
            self._emit_call_started_event(messages, **of)
            try:
                self._play(turn, of)
            except Exception as error:
                self._emit_call_failed_event(str(error), **of)
                raise
            calls = [called(piece) for piece in turn if isinstance(piece, Call)]
            said = "".join(piece.text for piece in turn if isinstance(piece, Say))
            kind = LLMCallType.TOOL_CALL if calls else LLMCallType.LLM_CALL
            self._emit_call_completed_event(calls or said, kind, usage=TAKEN, **of)
        return calls or said

    def _play(self, turn: Turn, of: dict[str, Any]) -> None:
        for piece in turn:
            if isinstance(piece, Fail):
                raise piece.error
            if isinstance(piece, Wait):
                asyncio.run_coroutine_threadsafe(awaited(piece), self._loop).result()
            elif not self.stream:
                continue
            elif isinstance(piece, Think):
                self._emit_thinking_chunk_event(piece.text, **of)
            elif isinstance(piece, Call):
                for text in piece.pieces:
                    given = {"name": piece.name, "arguments": text}
                    call = {"id": piece.id, "function": given, "index": 0}
                    self._emit_stream_chunk_event(text, tool_call=call, **of)
            else:
                self._emit_stream_chunk_event(piece.text, **of)


async def awaited(piece: Wait) -> None:
    await piece.until()


def called(piece: Call) -> dict[str, Any]:
    function = {"name": piece.name, "arguments": piece.input}
    return {"id": piece.id, "type": "function", "function": function}


class FunctionTool(BaseTool):
    """A tool, which CrewAI calls in a thread; what is asynchronous works on the loop of the test."""

    _call: Callable[..., Any] = PrivateAttr()

    def _run(self, **given: Any) -> Any:
        return self._call(**given)


def as_tool(function: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> BaseTool:
    def call(**given: Any) -> Any:
        if inspect.iscoroutinefunction(function):
            return asyncio.run_coroutine_threadsafe(function(**given), loop).result()
        return function(**given)

    fields: dict[str, Any] = dict.fromkeys(inspect.signature(function).parameters, (str, ...))
    schema: type[BaseModel] = create_model(function.__name__, **fields)
    made = FunctionTool(
        name=function.__name__, description=function.__doc__ or "", args_schema=schema
    )
    made._call = call
    return made


def agent(
    turns: Script,
    tools: Sequence[Callable[..., Any]] = (),
    *,
    role: str = "researcher",
    stream: bool = True,
    **more: Any,
) -> Agent:
    loop = asyncio.get_running_loop()
    return Agent(
        role=role,
        goal="answer",
        backstory="none",
        tools=[as_tool(tool, loop) for tool in tools],
        llm=ScriptedLLM(turns, loop, stream=stream),
        max_retry_limit=0,
        **more,
    )


def task(of: Agent, **more: Any) -> Task:
    return Task(description="Which?", expected_output="an answer", agent=of, **more)


def crew(*agents: Agent, **more: Any) -> Crew:
    """Return a crew in which each agent has one task."""
    return Crew(agents=list(agents), tasks=[task(of) for of in agents], **more)


async def answer(
    run: Run,
    turns: Script,
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    return str((await relay(crew(agent(turns, tools)), run, parts=parts)).raw)

"""
An agent of Pydantic AI that tidies up files, and asks before it deletes any.

A model of your provider takes the place of `FunctionModel`, which plays a part
and needs no key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelMessage, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

FILES = {"report.txt": 2026, "draft.txt": 2019, "notes.txt": 2017}
PACE = float(os.environ.get("PACE", "0.05"))


async def play(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Stand for a model: look for old files, then ask to delete them; or talk."""
    last = messages[-1].parts[-1]
    if isinstance(last, UserPromptPart) and "tidy" in str(last.content):
        yield {0: DeltaToolCall(name="list_files", json_args='{"before": 2020}')}
    elif isinstance(last, UserPromptPart):
        async for word in words(talk(str(last.content))):
            yield word
    elif isinstance(last, ToolReturnPart) and last.tool_name == "list_files":
        files = last.model_response_str()
        async for word in words(f"These files are old: {files}."):
            yield word
        yield {1: DeltaToolCall(name="delete_files", json_args=f'{{"files": {files}}}')}
    elif isinstance(last, ToolReturnPart) and last.outcome == "denied":
        async for word in words("Then everything stays."):
            yield word
    elif isinstance(last, ToolReturnPart):
        async for word in words(str(last.content)):
            yield word


def talk(question: str) -> str:
    """Say a lot, so that there is time to break something."""
    count = 200 if "long" in question else 12
    sentences = [f"Sentence {number} says that the log has it." for number in range(1, count + 1)]
    return " ".join([f"You asked: {question}", *sentences])


async def words(text: str) -> AsyncIterator[str]:
    """Give a text as a model does."""
    for word in text.split():
        yield f"{word} "
        await asyncio.sleep(PACE)


agent = Agent(FunctionModel(stream_function=play), output_type=[str, DeferredToolRequests])


@agent.tool_plain
def list_files(before: int) -> list[str]:
    """List the files from before a year."""
    return [name for name, year in FILES.items() if year < before]


@agent.tool_plain(requires_approval=True)
def delete_files(files: list[str]) -> str:
    """Delete files."""
    return f"Deleted {', '.join(files)}."

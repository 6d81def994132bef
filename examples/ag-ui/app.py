"""An agent of Pydantic AI that tidies up files, and asks before it deletes any; its page speaks AG-UI."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelMessage, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from starlette.requests import HTTPConnection

from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.answering import Answer
from catenary.inbound import Message
from catenary.integrations.fastapi import catenary_router
from catenary.integrations.pydantic_ai import relay, resume, suspend

HERE = Path(__file__).parent
FILES = {"report.txt": 2026, "draft.txt": 2019, "notes.txt": 2017}
PACE = float(os.environ.get("PACE", "0.05"))

factory = WebSocketBridgeFactory(log=os.environ.get("LOG", f"sqlite:///{HERE / 'events.db'}"))


# The agent. A model of your provider takes the place of `FunctionModel`, which needs no key.


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


# What it says goes to the log.


@factory.on_message("user_message")
async def asked(message: Message, emitter: UserWebSocketEmitter) -> None:
    """Start the agent for a message of the user."""
    emitter.start_run(answer, str(message.data["content"]), agent_name="assistant")


@factory.on_answer
async def answered(given: Answer, emitter: UserWebSocketEmitter) -> None:
    """Go on when the user has answered, maybe days later: the agent's messages are kept with the question."""
    emitter.start_run(go_on, given, agent_name="assistant")


async def answer(run: Run, question: str) -> None:
    """Relay the agent; end with its questions, if it has any."""
    suspend(run, await relay(agent.run_stream_events(question), run))


async def go_on(run: Run, given: Answer) -> None:
    """Relay the agent from where it asked."""
    suspend(run, await relay(agent.run_stream_events(**resume(given)), run))


async def authenticate(_: HTTPConnection) -> str:
    """Stand for your own sign-in: here everybody is the same user."""
    return "user_123"


app = FastAPI()
app.include_router(
    catenary_router(factory, authenticate=authenticate, wires=["ag-ui"]), prefix="/live"
)
app.mount("/", StaticFiles(directory=HERE / "dist", html=True))

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    print(f"http://127.0.0.1:{port}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")

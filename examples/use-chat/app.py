"""A graph of LangGraph behind a page that uses `useChat`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from graph import calls_of, made
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from starlette.requests import HTTPConnection

from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.answering import Answer
from catenary.inbound import Message
from catenary.integrations.fastapi import catenary_router
from catenary.integrations.langgraph import MODES, relay, resume, suspend

HERE = Path(__file__).parent
DATA = Path(os.environ.get("DATA", HERE))

factory = WebSocketBridgeFactory(log=os.environ.get("LOG", f"sqlite:///{HERE / 'events.db'}"))


@factory.on_message("user_message")
async def asked(message: Message, emitter: UserWebSocketEmitter) -> None:
    """Start the graph for a message of the user."""
    emitter.start_run(answer, message, agent_name="assistant")


@factory.on_answer
async def answered(given: Answer, emitter: UserWebSocketEmitter) -> None:
    """Go on when the user has answered, maybe days later."""
    emitter.start_run(go_on, given, agent_name="assistant")


async def answer(run: Run, message: Message) -> None:
    """Relay the graph; end with its questions, if it has any."""
    # The names that the page has for the question and for its answer.
    names = {"id": message.data["message_id"], "additional_kwargs": {"run_id": run.run_id}}
    question = HumanMessage(message.data["content"], **names)
    await relayed(run, {"messages": [question]}, message.thread_id)


async def go_on(run: Run, given: Answer) -> None:
    """Relay the graph from where it asked."""
    await relayed(run, resume(given), given.thread_id)


async def relayed(run: Run, given: Any, thread_id: str | None) -> None:
    """Relay what the graph makes of this."""
    config = {"configurable": {"thread_id": thread_id}}
    stream = app.state.graph.astream(given, config, stream_mode=MODES, subgraphs=True)
    suspend(run, await relay(stream, run))


async def authenticate(_: HTTPConnection) -> str:
    """Stand for your own sign-in: here everybody is the same user."""
    return "user_123"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have a graph whose threads outlive the process."""
    async with AsyncSqliteSaver.from_conn_string(str(DATA / "threads.db")) as checkpointer:
        app.state.graph = made(checkpointer)
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(
    catenary_router(factory, authenticate=authenticate, wires=["ai-sdk"]), prefix="/live"
)


@app.get("/chats/{thread_id}")
async def history(thread_id: str) -> list[dict[str, Any]]:
    """Return the messages of a chat, as `useChat` has them: from the graph's own memory."""
    state = await app.state.graph.aget_state({"configurable": {"thread_id": thread_id}})
    shown: list[dict[str, Any]] = []
    for message in state.values.get("messages", []):
        if isinstance(message, HumanMessage):
            text = [{"type": "text", "text": message.text}]
            shown.append({"id": message.id, "role": "user", "parts": text})
            # Under the id of its run, so that what is streamed again takes its place.
            run_id = message.additional_kwargs["run_id"]
            shown.append({"id": run_id, "role": "assistant", "parts": []})
        elif isinstance(message, ToolMessage):
            call = next(
                part
                for part in shown[-1]["parts"]
                if part.get("toolCallId") == message.tool_call_id
            )
            call |= {"state": "output-available", "output": message.text}
        else:
            shown[-1]["parts"] += parts_of(message)
    return [message for message in shown if message["parts"]]


def parts_of(message: BaseMessage) -> list[dict[str, Any]]:
    """Return what a message of the model shows."""
    text = [{"type": "text", "text": message.text}] if message.text else []
    calls = [
        {
            "type": "dynamic-tool",
            "toolCallId": call["id"],
            "toolName": call["name"],
            "input": call["args"],
            "state": "input-available",
        }
        for call in calls_of(message)
    ]
    return [*text, *calls]


app.mount("/", StaticFiles(directory=HERE / "dist", html=True))

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    print(f"http://127.0.0.1:{port}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")

"""A graph of LangGraph that tidies up files, and asks before it deletes any; its page uses `useChat`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from starlette.requests import HTTPConnection

from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.answering import Answer
from catenary.inbound import Message
from catenary.integrations.fastapi import catenary_router
from catenary.integrations.langgraph import MODES, relay, resume, suspend

HERE = Path(__file__).parent
DATA = Path(os.environ.get("DATA", HERE))
FILES = {"report.txt": 2026, "draft.txt": 2019, "notes.txt": 2017}
PACE = float(os.environ.get("PACE", "0.05"))

factory = WebSocketBridgeFactory(log=os.environ.get("LOG", f"sqlite:///{HERE / 'events.db'}"))


# The graph. A model of your provider takes the place of this one, which needs no key.


class Player(BaseChatModel):
    """Stands for a model: look for old files, then ask to delete them; or talk."""

    @property
    def _llm_type(self) -> str:
        return "player"

    async def _astream(
        self, messages: list[BaseMessage], *_: Any, **__: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        last = messages[-1]
        text, call = self.turn(last)
        for word in text.split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))
            await asyncio.sleep(PACE)
        if call:
            chunk = tool_call_chunk(name=call[0], args=call[1], id=f"call_{last.id}", index=0)
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))

    def turn(self, last: BaseMessage) -> tuple[str, tuple[str, str] | None]:
        """What to say, and which tool to call, after the last message."""
        if isinstance(last, ToolMessage) and last.name == "list_files":
            return f"These files are old: {last.text}.", (
                "delete_files",
                f'{{"files": {last.text}}}',
            )
        if isinstance(last, ToolMessage):
            return last.text, None
        if "tidy" in last.text:
            return "", ("list_files", '{"before": 2020}')
        count = 200 if "long" in last.text else 12
        sentences = [
            f"Sentence {number} says that the log has it." for number in range(1, count + 1)
        ]
        return " ".join([f"You asked: {last.text}", *sentences]), None

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError("this model only streams")


model = Player()


def list_files(before: int) -> list[str]:
    """List the files from before a year."""
    return [name for name, year in FILES.items() if year < before]


def delete_files(files: list[str]) -> str:
    """Delete files."""
    return f"Deleted {', '.join(files)}."


async def think(state: MessagesState) -> dict[str, Any]:
    """Ask the model."""
    return {"messages": [await model.ainvoke(state["messages"])]}


def approve(state: MessagesState) -> Command[Literal["tools", "think", "__end__"]]:
    """Let the user approve what deletes."""
    for call in calls_of(state["messages"][-1]):
        if call["name"] == "delete_files":
            question = f"Delete {len(call['args']['files'])} files?"
            about = {"name": call["name"], "args": call["args"], "tool_call_id": call["id"]}
            decision = interrupt({"type": "tool_approval", "description": question, **about})
            if decision["type"] != "approve":
                no = ToolMessage(
                    "Then everything stays.", name=call["name"], tool_call_id=call["id"]
                )
                return Command(goto="think", update={"messages": [no]})
    return Command(goto="tools") if calls_of(state["messages"][-1]) else Command(goto="__end__")


def calls_of(message: BaseMessage) -> Sequence[Any]:
    """Return the tool calls that a message asks for."""
    return message.tool_calls if isinstance(message, AIMessage) else []


def made(checkpointer: BaseCheckpointSaver[Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return the graph."""
    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("approve", approve)
    graph.add_node("tools", ToolNode([list_files, delete_files]))
    graph.add_edge(START, "think")
    graph.add_edge("think", "approve")
    graph.add_edge("tools", "think")
    return graph.compile(checkpointer=checkpointer)


# What it says goes to the log.


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


# The application


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

"""
A graph of LangGraph that tidies up files, and asks before it deletes any.

A model of your provider takes the place of this one, which plays a part and
needs no key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

FILES = {"report.txt": 2026, "draft.txt": 2019, "notes.txt": 2017}
PACE = float(os.environ.get("PACE", "0.05"))


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

"""LangGraph: an agent as a graph of two nodes, with LangChain's fake model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from catenary import Run
from catenary.answering import Answer
from catenary.integrations.langgraph import MODES, ask, relay, resume, suspend
from catenary.integrations.relay import PARTS
from tests.integrations.frameworks.cautious import SCRIPT, delete
from tests.integrations.frameworks.chat_models import ScriptedChat, as_tool
from tests.integrations.frameworks.script import Turn

ASKED: Any = {"messages": [("user", "Which?")]}


def graph(
    turns: Sequence[Turn],
    tools: Sequence[Callable[..., Any]] = (),
    *,
    model: ScriptedChat | None = None,
    node: str = "agent",
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return a graph in which a model and its tools take turns."""
    asked = model or ScriptedChat(turns=list(turns))

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await asked.ainvoke(state["messages"])]}

    made = StateGraph(MessagesState)
    made.add_node(node, agent)
    made.add_node("tools", ToolNode([as_tool(tool) for tool in tools]))
    made.add_edge(START, node)
    made.add_conditional_edges(node, tools_condition)
    made.add_edge("tools", node)
    return made.compile(name="researcher")


async def answer(
    run: Run,
    turns: Sequence[Turn],
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    stream = graph(turns, tools).astream(ASKED, stream_mode=MODES, subgraphs=True)
    state = await relay(stream, run, parts=parts)
    return str(state["messages"][-1].text)


class CautiousAgent:
    """An agent of LangChain, with its middleware for humans in the loop."""

    def __init__(self, mode: Any = "batched") -> None:
        gate: Any = HumanInTheLoopMiddleware(interrupt_on={"delete": True}, interrupt_mode=mode)
        self.graph = create_agent(
            ScriptedChat(turns=list(SCRIPT)),
            [as_tool(delete)],
            middleware=[gate],
            checkpointer=InMemorySaver(),
        )

    def stream(self, given: Any, thread_id: str | None) -> AsyncIterator[Any]:
        config: Any = {"configurable": {"thread_id": thread_id}}
        return self.graph.astream(given, config, stream_mode=MODES, subgraphs=True)

    async def ask(self, run: Run) -> None:
        state = await relay(self.stream(ASKED, run.thread_id), run)
        while command := await ask(run, state):
            state = await relay(self.stream(command, run.thread_id), run)

    async def suspend(self, run: Run) -> None:
        state = await relay(self.stream(ASKED, run.thread_id), run)
        assert suspend(run, state, keep=run.thread_id)

    async def resume(self, run: Run, answer: Answer) -> None:
        state = await relay(self.stream(resume(answer), answer.state["keep"]), run)
        assert not suspend(run, state)

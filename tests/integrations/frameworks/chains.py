"""LangChain: a loop of a model and its tools as a runnable, with LangChain's fake model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from catenary import Run
from catenary.integrations.langchain import RelayHandler, relay
from catenary.integrations.relay import PARTS
from tests.integrations.frameworks.chat_models import ScriptedChat, as_tool
from tests.integrations.frameworks.script import Turn


def chain(
    turns: Sequence[Turn],
    tools: Sequence[Callable[..., Any]] = (),
    *,
    model: ScriptedChat | None = None,
) -> RunnableLambda[str, str]:
    """Return a runnable that asks the model until it calls no more tools."""
    asked = model or ScriptedChat(turns=list(turns))
    known = {tool.name: tool for tool in map(as_tool, tools)}

    async def ask(question: str) -> str:
        messages: list[BaseMessage] = [HumanMessage(question)]
        while True:
            said = await asked.ainvoke(messages)
            messages.append(said)
            calls = said.tool_calls if isinstance(said, AIMessage) else []
            if not calls:
                return str(said.text)
            messages += await asyncio.gather(*(known[call["name"]].ainvoke(call) for call in calls))

    return RunnableLambda(ask)


async def answer(
    run: Run,
    turns: Sequence[Turn],
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    events = chain(turns, tools).astream_events("Which?", version="v2")
    return str(await relay(events, run, parts=parts))


async def answer_with_callbacks(
    run: Run,
    turns: Sequence[Turn],
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    async with RelayHandler(run, parts=parts) as handler:
        return await chain(turns, tools).ainvoke("Which?", config={"callbacks": [handler]})

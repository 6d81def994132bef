"""What the pages of the frameworks take for granted, and what their agents do when they are asked."""

from __future__ import annotations

import asyncio
import importlib
import stat
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from catenary import UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.answering import Answering
from catenary.auth import Identity
from catenary.client import Client
from catenary.fold import RunState, RunStatus
from catenary.inbound import Source
from tests.docs.pages import ROOT
from tests.integrations.frameworks.script import Call, Say, Script

Names = dict[str, Any]
ME = Source(identity=Identity(user_id="user_123"), log_id="user_123")
SEARCH: Script = [
    [Call("call_1", "search", ('{"query": ', '"Bern"}'))],
    [Say("One "), Say("fits.")],
]
DELETE: Script = [[Call("call_1", "delete", ('{"path": ', '"old.txt"}'))], [Say("Done.")]]
FOUND = "a bridge for Bern"
PROGRAM = ROOT / "tests" / "docs" / "program.py"

NEEDS = {
    "langgraph": "langchain",
    "langchain": "langchain_core",
    "pydantic-ai": "pydantic_ai",
    "openai-agents": "agents",
    "claude-agent-sdk": "claude_agent_sdk",
    "crewai": "crewai",
    "google-adk": "google.adk",
    "smolagents": "smolagents",
}
"""The package that a page is about."""


def fake(module: str) -> Any:
    """A framework's fake model, which is there if the framework is."""
    return importlib.import_module(f"tests.integrations.frameworks.{module}")


def given_langgraph() -> Names:
    return {"model": fake("chat_models").ScriptedChat(turns=list(SEARCH))}


def given_langchain() -> Names:
    said: Script = [SEARCH[1], SEARCH[1]]
    return {"model": fake("chat_models").ScriptedChat(turns=list(said))}


def given_pydantic_ai() -> Names:
    agents = fake("pydantic_agents")

    async def stream(messages: Any, info: Any) -> AsyncIterator[Any]:
        is_search = any(tool.name == "search" for tool in info.function_tools)
        async for piece in agents.model(SEARCH if is_search else DELETE).stream_function(
            messages, info
        ):
            yield piece

    return {"model": agents.FunctionModel(stream_function=stream)}


def given_openai_agents() -> Names:
    return {"model": fake("openai_agents").model([*SEARCH, *DELETE, *DELETE])}


def given_claude_agent_sdk() -> Names:
    """Options with which the SDK starts a program that asks no model."""
    program = Path("program").absolute()
    program.write_text(f"#!{sys.executable}\n{PROGRAM.read_text()}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    options = importlib.import_module("claude_agent_sdk").ClaudeAgentOptions
    return {"mine": options(cli_path=program)}


def given_crewai() -> Names:
    # It reads fields of its own that it gives up, and imports modules in a way that Python warns of.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"crewai\.")
    warnings.filterwarnings("ignore", "Cannot set an attribute on 'crewai", ImportWarning)
    return {"model": fake("crews").ScriptedLLM(SEARCH, asyncio.get_running_loop())}


def given_google_adk() -> Names:
    return {"model": fake("google_agents").ScriptedLlm(model="scripted", turns=list(SEARCH))}


def given_smolagents() -> Names:
    agents = fake("small_agents")
    loop = asyncio.get_running_loop()

    def search(query: str) -> str:
        """Search."""
        return f"a bridge for {query}"

    return {"model": agents.ScriptedModel(SEARCH, loop), "search": agents.as_tool(search, loop)}


GIVEN: dict[str, Callable[[], Names]] = {
    "langgraph": given_langgraph,
    "langchain": given_langchain,
    "pydantic-ai": given_pydantic_ai,
    "openai-agents": given_openai_agents,
    "claude-agent-sdk": given_claude_agent_sdk,
    "crewai": given_crewai,
    "google-adk": given_google_adk,
    "smolagents": given_smolagents,
}


async def asked(names: Names, url: str) -> RunState:
    """Ask as a page does; return the run that answered, which has the answer as its result too."""
    factory: WebSocketBridgeFactory = names["factory"]
    async with Client(url, token=names["fetch_token"]) as client:
        await client.send("user_message", {"content": "Which?"}, thread_id="t1")
    state = await run_of(factory, 1)
    assert state.status is RunStatus.COMPLETED, state.error
    assert state.text == state.result["answer"]
    return state


async def a_tool_and_an_answer(names: Names, url: str) -> None:
    """The handler of the page answers after a search."""
    state = await asked(names, url)
    assert state.text == "One fits."
    (tool,) = state.tools
    assert (tool.tool_name.removeprefix("mcp__tools__"), tool.tool_output) == ("search", FOUND)


async def an_answer(names: Names, url: str) -> None:
    """The handler of the page answers, and so does its callback handler."""
    assert (await asked(names, url)).text == "One fits."
    async with names["emitter"].run() as run:
        await names["answer_by_callbacks"](run, "Which?")
    assert run.state.text == "One fits."


async def cleaning(names: Names, url: str) -> None:
    """Both ways to ask the user end with the same result."""
    await a_tool_and_an_answer(names, url)
    factory: WebSocketBridgeFactory = names["factory"]
    emitter: UserWebSocketEmitter = names["emitter"]
    emitter.start_run(names["clean"])
    cleaned = await run_of(factory, 2)
    assert cleaned.result in ({"deleted": True}, {"answer": "Done."})
    emitter.start_run(names["begin_cleaning"])
    first, second = await run_of(factory, 3), await run_of(factory, 4)
    assert (first.status, second.continues_run_id) == (RunStatus.SUSPENDED, first.run_id)
    assert second.result == cleaned.result


async def run_of(factory: WebSocketBridgeFactory, number: int) -> RunState:
    """Wait until the user's run of this number has ended; answer with yes what is asked meanwhile."""
    async with asyncio.timeout(10):
        while True:
            for question in await factory.questions("user_123"):
                key = f"answer to {question.request_id}"
                await Answering(factory.service).take(ME, question.request_id, True, key)
            runs = await factory.runs("user_123")
            if len(runs) >= number and runs[number - 1].status is not RunStatus.RUNNING:
                return runs[number - 1]
            await asyncio.sleep(0.01)


AFTER: dict[str, Callable[[Names, str], Awaitable[None]]] = {
    "langgraph": cleaning,
    "langchain": an_answer,
    "pydantic-ai": cleaning,
    "openai-agents": cleaning,
    "claude-agent-sdk": a_tool_and_an_answer,
    "crewai": a_tool_and_an_answer,
    "google-adk": a_tool_and_an_answer,
    "smolagents": a_tool_and_an_answer,
}
